"""Gates: how much of a direction is written for an item, read once from the item's own prompt.

A direction that writes the same amount everywhere moves every item alike, so it cannot tell one
item from another. A gate reads the prompt at one site, and says how much of the direction to write
at another. What it reads is the model without any steering, averaged over the prompt's own tokens
(no padding, no special tokens, not the first), so it is the same alone, in a batch and cached; and
once read, the amount stays what it is, however much is generated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from saepd.common.checks import check_choice, check_number, check_numbers
from saepd.common.errors import InputError
from saepd.common.messages import shortened
from saepd.directions.given_numbers import Numbers, finite_vector
from saepd.directions.sites import same_site
from saepd.models.sites import SiteBatch, read_site
from saepd.saes.abilities import WRITABLE_SITE, check_is_sae, encode
from saepd.saes.load import sae_hook_name

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

Rule = Literal["linear", "above", "below"]
RULES: tuple[str, ...] = get_args(Rule)


@dataclass(frozen=True, eq=False, repr=False)
class Gate:
    """How much of a direction is written, by what the item's prompt holds at a site.

    The score of an item is ``weights . (reading - mean) / scale + bias``. Its reading is the
    residual, or the square root of an SAE's latents: a mean over a prompt is dominated by the few
    latents that fire strongly. A ``linear`` gate writes the direction times the score; ``above``
    and ``below`` write all of it where the score is above or below the threshold, and nothing of
    it elsewhere. With ``cosine`` that is conditional activation steering (Lee et al., arXiv
    2409.05907), whose condition is a similarity to one vector.

    Attributes:
        hook_name: The site that is read, where directions may act or where the SAE reads; its
            block may not be above the direction's.
        weights: Weight of each axis of the residual, [d_model], or of each latent, [d_sae].
        mean: What is taken off the reading first; zero if not given.
        scale: What the reading is divided by then, positive; one if not given.
        bias: Number that is added to the score.
        sae: The dictionary whose latents are read; None to read the residual itself.
        rule: How the amount follows from the score: ``linear``, ``above`` or ``below``.
        threshold: Score above or below which the direction is written.
        cosine: Divide the score, without its bias, by the norms of weights and scaled reading.
        limits: The smallest and the largest amount of a ``linear`` gate; any amount if not given.

    Raises:
        InputError: numbers that are not finite or not equally many, a scale that is not positive,
            limits of another rule or in the wrong order, a site where no direction could act, an
            SAE of another site or width, or an unknown rule.
    """

    hook_name: str
    weights: Float[Tensor, " reading"]
    mean: Float[Tensor, " reading"] | None = None
    scale: Float[Tensor, " reading"] | None = None
    bias: float = 0.0
    sae: SAE[Any] | None = None
    rule: Rule = "linear"
    threshold: float = 0.0
    cosine: bool = False
    limits: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.sae is not None:
            check_is_sae(self.sae)
        if not isinstance(self.hook_name, str) or not self._can_read():
            raise InputError(
                f"a gate's hook_name is {shortened(self.hook_name)}: it must be a site of a block, "
                "such as blocks.10.hook_resid_post"
            )
        weights = finite_vector(self.weights, "a gate's weights")
        object.__setattr__(self, "weights", weights)
        for name, default in (("mean", 0.0), ("scale", 1.0)):
            given = getattr(self, name)
            numbers: Numbers = torch.full_like(weights, default) if given is None else given
            object.__setattr__(self, name, finite_vector(numbers, f"a gate's {name}"))
            if len(getattr(self, name)) != len(weights):
                raise InputError(
                    f"a gate has {len(weights)} weights but its {name} has "
                    f"{len(getattr(self, name))}: give as many of both"
                )
        assert self.scale is not None
        if not bool((self.scale > 0).all()):
            raise InputError("a gate's scale must be positive throughout")
        check_number("a gate's bias", self.bias)
        check_number("a gate's threshold", self.threshold)
        check_choice("rule of a gate", self.rule, RULES)
        if not isinstance(self.cosine, bool):
            raise InputError(f"a gate's cosine is {self.cosine!r}: it must be true or false")
        if self.limits is not None:
            self._check_limits()
        if self.sae is not None:
            site = sae_hook_name(self.sae)
            if not same_site(site, self.hook_name):
                raise InputError(
                    f"a gate's SAE was trained at {site}, and cannot read {self.hook_name}"
                )
            if len(weights) != self.sae.cfg.d_sae:
                raise InputError(
                    f"a gate has {len(weights)} weights, but its SAE has {self.sae.cfg.d_sae} "
                    "latents: give each of them one"
                )

    def _can_read(self) -> bool:
        """Whether it reads where directions may act, or where its SAE does within a block."""
        is_its_own = self.sae is not None and self.hook_name == sae_hook_name(self.sae)
        may_act = WRITABLE_SITE.fullmatch(self.hook_name) is not None
        return may_act or (is_its_own and self.hook_name.startswith("blocks."))

    def _check_limits(self) -> None:
        if self.rule != "linear":
            raise InputError(f"a gate with the rule {self.rule!r} has no limits: leave them out")
        check_numbers("a gate's limits", self.limits)
        if self.limits is None or len(self.limits) != 2 or self.limits[0] > self.limits[1]:
            raise InputError(
                f"a gate's limits are {shortened(self.limits)}: give the smallest amount and the "
                "largest"
            )
        object.__setattr__(self, "limits", (float(self.limits[0]), float(self.limits[1])))

    def __repr__(self) -> str:
        what = "the residual" if self.sae is None else "latents"
        how = f"{self.rule} cosine" if self.cosine else self.rule
        if self.rule != "linear":
            how += f" {self.threshold:.4g}"
        if self.limits is not None:
            how += f" within {self.limits[0]:.3g}..{self.limits[1]:.3g}"
        return f"Gate({how}, reads {what} at {self.hook_name})"

    @property
    def block(self) -> int:
        """Index of the block whose site it reads."""
        return int(self.hook_name.split(".")[1])

    @property
    def width(self) -> int:
        """Size of the activations that it reads."""
        return len(self.weights) if self.sae is None else int(self.sae.cfg.d_in)

    def reading(self, batch: SiteBatch) -> Float[Tensor, "batch reading"]:
        """What the gate sees of each prompt, before mean and scale."""
        return _reading(batch, self.hook_name, self.sae)

    def amount(self, reading: Float[Tensor, "batch reading"]) -> Float[Tensor, " batch"]:
        """How much of the direction each item is written."""
        assert self.mean is not None and self.scale is not None
        device = reading.device
        scaled = (reading - self.mean.to(device)) / self.scale.to(device)
        weights = self.weights.to(device)
        score = scaled @ weights
        if self.cosine:
            score = score / (scaled.norm(dim=-1) * weights.norm()).clamp(min=1e-12)
        score = score + self.bias
        if self.rule == "linear":
            return score if self.limits is None else score.clamp(*self.limits)
        is_open = score > self.threshold if self.rule == "above" else score < self.threshold
        return is_open.to(score)


@dataclass(frozen=True, eq=False)
class Reader:
    """What gates at a site see of prompts, where no gate makes an amount of it yet.

    Attributes:
        hook_name: The site that is read.
        sae: The dictionary whose latents are read; None to read the residual itself.
    """

    hook_name: str
    sae: SAE[Any] | None = None

    @property
    def block(self) -> int:
        """Index of the block whose site it reads."""
        return int(self.hook_name.split(".")[1])

    @property
    def width(self) -> int:
        """Size of the activations that it reads; 0 where that is not known."""
        return 0 if self.sae is None else int(self.sae.cfg.d_in)

    def reading(self, batch: SiteBatch) -> Float[Tensor, "batch reading"]:
        """What a gate would see of each prompt, before mean and scale."""
        return _reading(batch, self.hook_name, self.sae)

    def amount(self, reading: Float[Tensor, "batch reading"]) -> Float[Tensor, "batch reading"]:
        """The reading itself."""
        return reading


# What each gate says of some items, and what readers see of them.
Amounts: TypeAlias = dict["Gate | Reader", Float[Tensor, "items ..."]]


def _reading(
    batch: SiteBatch, hook_name: str, sae: SAE[Any] | None
) -> Float[Tensor, "batch reading"]:
    h = batch.held[hook_name].float()
    if sae is None:
        return batch.mean(h)
    return batch.mean(encode(sae, h).float()).clamp(min=0).sqrt()


def _bytes_per_token(gate: Gate | Reader) -> int:
    """What reading takes for each token, beside the model's own run."""
    return 8 * (gate.width + (0 if gate.sae is None else int(gate.sae.cfg.d_sae)))


def read_amounts(
    model: TransformerBridge, rows: Sequence[list[int]], gates: Sequence[Gate | Reader]
) -> Amounts:
    """How much each gate lets through for each prompt, which runs unsteered up to their sites.

    Args:
        model: The language model; none of its hooks may edit anything meanwhile.
        rows: Token ids of each prompt.
        gates: The gates, each once.

    Raises:
        InputError: a site that the model does not have, or a reading that is not finite.
    """
    if not gates:
        return {}

    def collect(batch: SiteBatch) -> list[tuple[Tensor, ...]]:
        return list(zip(*(gate.amount(gate.reading(batch)).cpu() for gate in gates), strict=True))

    sites = list(dict.fromkeys(gate.hook_name for gate in gates))
    most = max(map(_bytes_per_token, gates))
    by_row = read_site(model, sites, rows, collect, collected_bytes=most)
    device = next(model.original_model.parameters()).device
    amounts = [torch.stack(of_gate).to(device) for of_gate in zip(*by_row, strict=True)]
    if not all(bool(of_gate.isfinite().all()) for of_gate in amounts):
        raise InputError("a gate reads what is not a number in some prompt: use float32")
    return dict(zip(gates, amounts, strict=True))
