"""Directions: one perspective's edit of one site, as data that can be saved, checked and applied.

A direction knows what it writes (latents, values, mode), where (site, positions) and how much
(coefficient). ``with direction.apply(model):`` makes it act on everything the bridge does;
`saepd.branches.run` runs many at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saepd.common.errors import InputError
from saepd.directions.edits import LatentEdit
from saepd.directions.modes import DEFAULT_POSITIONS, MODES, Mode
from saepd.models.position_specs import parse_positions
from saepd.models.positions import generated_mask, prompt_mask

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.model_bridge import TransformerBridge


# What these hold is, or is added to, the residual stream. (The bridge's hook_resid_mid is only the
# MLP's input: an edit there never enters the stream.)
_SITE = re.compile(
    r"blocks\.\d+\.(hook_(resid_pre|resid_post|in|out|attn_out|mlp_out)|(attn|mlp)\.hook_out)"
)

_applied: list[TransformerBridge] = []


@dataclass(frozen=True, eq=False)
class Direction:
    """One perspective's edit at one site.

    Attributes:
        perspective: Whose direction this is; also the name of its branch.
        hook_name: The site, such as ``blocks.15.hook_resid_post``.
        mode: ``add``, ``scale``, ``clamp`` or ``ablate``; or the control ``reconstruct``.
        positions: See `saepd.models.positions`.
        coefficient: Multiplies the whole difference that the edit makes; unit-free.
        latents: Ids of the edited latents; empty for a dense direction.
        values: SAE activation units (``add``, ``clamp``), factors (``scale``), unused (``ablate``).
        sae: The dictionary; None for a dense direction.
        vector: What a dense direction adds, in residual units; None for one made of latents.
        lineage: How it came about (model, SAE, feedback hash, settings); JSON values.
    """

    perspective: str
    hook_name: str
    mode: Mode = "add"
    positions: str = DEFAULT_POSITIONS
    coefficient: float = 1.0
    latents: Int[Tensor, " k"] | None = None
    values: Float[Tensor, " k"] | None = None
    sae: SAE[Any] | None = None
    vector: Float[Tensor, " d_model"] | None = None
    lineage: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parse_positions(self.positions)
        where = f"direction {self.perspective!r}"
        if self.mode not in MODES:
            raise InputError(f"{where}: unknown mode {self.mode!r}: use one of {', '.join(MODES)}")
        if (self.vector is None) == (self.sae is None):
            raise InputError(f"{where}: give either a dense vector, or an SAE with latents")
        if not _finite(self.coefficient):
            raise InputError(f"{where}: the coefficient is {self.coefficient}: it must be finite")
        if self.vector is not None:
            if self.mode != "add" or not _finite(self.vector):
                raise InputError(f"{where}: a dense vector must be finite, and can only be added")
        elif self.latents is None or self.values is None or self.sae is None:
            raise InputError(f"{where}: an SAE direction needs latents and values")
        elif self.latents.shape != self.values.shape or self.latents.ndim != 1:
            raise InputError(
                f"{where}: {tuple(self.latents.shape)} latents but {tuple(self.values.shape)} "
                "values: give one value for each latent"
            )
        elif (len(self.latents) == 0) != (self.mode == "reconstruct") or not _finite(self.values):
            raise InputError(f"{where}: needs at least one latent, and finite values")
        elif len(self.latents.unique()) != len(self.latents):
            raise InputError(f"{where}: a latent is named twice")
        elif bool(((self.latents < 0) | (self.latents >= self.sae.cfg.d_sae)).any()):
            raise InputError(f"{where}: latent ids must be in 0..{self.sae.cfg.d_sae - 1}")
        else:
            _ = self._edit

    @cached_property
    def _edit(self) -> LatentEdit:
        assert self.sae is not None and self.latents is not None and self.values is not None
        return LatentEdit(self.sae, self.latents, self.values, self.mode)

    @property
    def block(self) -> int:
        """Index of the block whose site this is."""
        return int(self.hook_name.split(".")[1])

    @property
    def width(self) -> int:
        """Size of the activations it edits."""
        return len(self.vector) if self.vector is not None else self._edit.rows.shape[1]

    @property
    def constant(self) -> Float[Tensor, " d_model"] | None:
        """The vector it adds wherever it acts, or None where that depends on the activation."""
        if self.vector is not None:
            return self.coefficient * self.vector
        assert self.sae is not None and self.values is not None
        if self.mode != "add" or scales_with_activation(self.sae):
            return None
        return self.coefficient * (self._edit.values @ self._edit.rows)

    def delta(self, h: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """The difference this direction makes to an activation, at every position of it."""
        constant = self.constant
        if constant is not None:
            return constant.to(h).expand_as(h)
        return self.coefficient * self._edit.delta(h)

    def scaled(self, coefficient: float) -> Direction:
        """The same direction with another coefficient."""
        return replace(self, coefficient=coefficient)

    @contextmanager
    def apply(self, model: TransformerBridge) -> Iterator[TransformerBridge]:
        """Steer everything the bridge does inside the block, generation included.

        Raises:
            InputError: the direction does not fit the model.
        """
        with apply_all(model, [self]) as steered:
            yield steered


def hook_point(model: TransformerBridge, hook_name: str) -> HookPoint:
    """The hook point at a site of a block; the whole ``hook_dict`` takes milliseconds to make."""
    _, block, name = hook_name.split(".", 2)
    return attrgetter(name)(model.blocks[int(block)])


def _has_site(model: TransformerBridge, hook_name: str) -> bool:
    try:
        return hook_point(model, hook_name) is not None
    except (AttributeError, IndexError):
        return False


def check_site(model: TransformerBridge, hook_name: str, where: str = "these prompts") -> None:
    """Refuse sites that the model does not have, or where an edit would be lost.

    Raises:
        InputError: which site, and which there are.
    """
    if not _SITE.fullmatch(hook_name) and hook_name in model.hook_dict:
        raise InputError(
            f"{where}: an edit at {hook_name!r} would not reach the residual stream: "
            "use a block's hook_resid_pre, hook_resid_post, hook_attn_out or hook_mlp_out"
        )
    if not _SITE.fullmatch(hook_name) or not _has_site(model, hook_name):
        raise InputError(
            f"{where}: this model has no site {hook_name!r}: its blocks are "
            f"0..{len(model.blocks) - 1}, their residual sites blocks.N.hook_resid_post"
        )


def check_fits(model: TransformerBridge, directions: Sequence[Direction]) -> None:
    """Refuse directions that were made for another model.

    Raises:
        InputError: a site the model does not have, another width, or another model's name.
    """
    width = int(model.cfg.d_model)
    for direction in directions:
        where = f"direction {direction.perspective!r}"
        check_site(model, direction.hook_name, where)
        found = direction.width
        if found != width:
            raise InputError(f"{where} has width {found}, but the model's residual has {width}")
        made_for = direction.lineage.get("model")
        if made_for is not None and made_for != model.cfg.model_name:
            raise InputError(
                f"{where} was made for {made_for!r}, not for {model.cfg.model_name!r}: "
                "load that model, or fit new directions"
            )


def scales_with_activation(sae: SAE[Any]) -> bool:
    """Whether an SAE normalises each activation, so that what a latent writes depends on it."""
    return sae.cfg.normalize_activations in ("constant_norm_rescale", "layer_norm")


def is_applied(model: TransformerBridge) -> bool:
    """Whether some direction is being applied to the model by `apply_all`."""
    return any(applied is model for applied in _applied)


@contextmanager
def apply_all(
    model: TransformerBridge, directions: Sequence[Direction]
) -> Iterator[TransformerBridge]:
    """Let several directions act together; each sees the site as it was before any of them.

    Afterwards, also after an exception, the model is as it was: every hook is removed by its
    handle, and hooks of the user's own stay.
    """
    check_fits(model, directions)
    step = _ForwardStep(model)
    with ExitStack() as stack:
        _applied.append(model)
        stack.callback(_applied.remove, model)
        stack.enter_context(step.watching())
        points = [hook_point(model, d.hook_name) for d in directions]
        # By hook point, because one may have several names.
        for point in dict.fromkeys(points):
            here = [d for d, its in zip(directions, points, strict=True) if its is point]

            def edit(
                _module: object, _args: object, h: torch.Tensor, here: list[Direction] = here
            ) -> torch.Tensor:
                return h + sum(
                    d.delta(h) * step.mask(d.positions).unsqueeze(-1).to(h) for d in here
                )

            stack.callback(point.register_forward_hook(edit).remove)
        yield model


class _ForwardStep:
    """What one forward pass was given, seen from a hook: which of its tokens are the prompt's.

    Tokens are generated if a cache already holds earlier ones, or if a running ``generate`` call
    has seen a shorter input before; everything else is prompt.
    """

    def __init__(self, model: TransformerBridge) -> None:
        self.model = model
        self._generating = False
        self._prompt_length: int | None = None
        self._tokens: torch.Tensor | None = None
        self._attention: torch.Tensor | None = None
        self._past = 0
        self._masks: dict[str, torch.Tensor] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        with ExitStack() as stack:
            handle = self.model.original_model.register_forward_pre_hook(
                self._note, with_kwargs=True
            )
            stack.callback(handle.remove)
            for name in ("generate", "generate_stream", "hf_generate"):
                stack.enter_context(self._noting_generation(name))
            yield

    @contextmanager
    def _noting_generation(self, name: str) -> Iterator[None]:
        # The bridge's own method is wrapped on the instance, since no hook tells that it runs.
        method = getattr(self.model, name)

        def start(*args: Any, **kwargs: Any) -> Any:
            self._generating, self._prompt_length = True, None
            return method(*args, **kwargs)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            try:
                return start(*args, **kwargs)
            finally:
                self._generating = False

        def wrapped_stream(*args: Any, **kwargs: Any) -> Any:
            try:
                yield from start(*args, **kwargs)
            finally:
                self._generating = False

        stream = name == "generate_stream"
        # An enclosing `apply` has wrapped it already; its wrapper comes back afterwards.
        outer = vars(self.model).get(name)
        object.__setattr__(self.model, name, wrapped_stream if stream else wrapped)
        try:
            yield
        finally:
            if outer is None:
                object.__delattr__(self.model, name)
            else:
                object.__setattr__(self.model, name, outer)

    def _note(self, _module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens = args[0] if args else kwargs.get("input_ids")
        if not isinstance(tokens, torch.Tensor):
            raise InputError("steering needs token ids: the model was called with embeddings")
        cache = kwargs.get("past_key_values")
        self._past = int(cache.get_seq_length()) if cache is not None else 0
        if self._generating and self._prompt_length is None:
            self._prompt_length = self._past + tokens.shape[1]
        attention = kwargs.get("attention_mask")
        if attention is None:
            attention = _guess_attention(tokens, self.model.tokenizer)
        self._tokens, self._attention = tokens, attention[:, -tokens.shape[1] :].long()
        self._masks = {}

    def mask(self, spec: str) -> torch.Tensor:
        """Positions [batch, seq] of the current input that a spec selects."""
        if spec not in self._masks:
            assert self._tokens is not None and self._attention is not None
            tokenizer, length = self.model.tokenizer, self._tokens.shape[1]
            boundary = 0 if self._past else length
            if self._generating and self._prompt_length is not None:
                boundary = min(length, max(0, self._prompt_length - self._past))
            parts = []
            if boundary:
                parts.append(
                    prompt_mask(
                        spec, self._tokens[:, :boundary], self._attention[:, :boundary], tokenizer
                    )
                )
            if boundary < length:
                parts.append(generated_mask(spec, self._tokens[:, boundary:], tokenizer))
            self._masks[spec] = torch.cat(parts, dim=1)
        return self._masks[spec]


def _guess_attention(tokens: torch.Tensor, tokenizer: Any) -> torch.Tensor:
    """Mask for a batch that came without one: trailing runs of the padding token are padding.

    A single row is never padded. (The bridge pads lists of strings on the right and passes no
    mask, because a causal model's earlier positions cannot see the padding.)
    """
    if tokens.shape[0] == 1 or tokenizer is None or tokenizer.pad_token_id is None:
        return torch.ones_like(tokens)
    is_text = (tokens != tokenizer.pad_token_id).long()
    return (is_text.flip(-1).cumsum(-1).flip(-1) > 0).long()


def _finite(value: Any) -> bool:
    return bool(torch.isfinite(torch.as_tensor(value, dtype=torch.float32)).all())
