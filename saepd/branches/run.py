"""Run the base model and every steered branch on prompts, and on texts that may follow them.

`branch` and `score_continuations` run prompts once. `capture_prompts` keeps what does not depend
on the directions, so that other directions and coefficients over the same prompts cost only the
part of the model above the site, from the first edited token on.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from saepd.branches.engine.broken import said_broken
from saepd.branches.engine.pack import Pack, longest, pack_costs
from saepd.branches.engine.plan import (
    Branch,
    Plan,
    check_continuations,
    check_prompts,
    make_plan,
    split_at,
)
from saepd.branches.engine.reference import ReferencePack, Texts
from saepd.branches.fast_path import pack_kind
from saepd.common.errors import InputError
from saepd.directions.gate import Gate, Reader, read_amounts
from saepd.directions.modes import DEFAULT_POSITIONS
from saepd.directions.sites import check_site
from saepd.models.batching import Progress, in_packs
from saepd.models.in_use import using
from saepd.models.position_specs import parse_positions
from saepd.models.tokens import check_lengths

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


AnyPack: TypeAlias = Pack | ReferencePack

# How many branches captured prompts are packed for.
_ROOM_FOR_BRANCHES = 8


class Scores(NamedTuple):
    """Log-likelihood of each continuation of a prompt, under the base and every branch.

    Attributes:
        log_probs: Summed over the continuation's tokens, in nats.
        n_tokens: Of each continuation.
    """

    log_probs: Float[Tensor, "branches continuations"]
    n_tokens: list[int]


class CapturedPrompts:
    """Prompts that have run as far as directions leave them alone; made by `capture_prompts`.

    Attributes:
        model: The language model.
        rows: Token ids of each prompt.
        packs: Which prompts ran together, and what each of these batches holds.
    """

    def __init__(
        self,
        model: TransformerBridge,
        rows: Sequence[list[int]],
        packs: Sequence[tuple[list[int], AnyPack]],
    ) -> None:
        self.model, self.rows = model, rows
        self.packs = packs

    def branch(self, directions: Sequence[Branch]) -> Float[Tensor, "batch branches vocab"]:
        """As `saepd.branch`, from here on; without directions the base is read alone.

        Raises:
            InputError: a direction that does not fit, or that edits what has already run.
        """
        plan = make_plan(self.model, directions)
        found: dict[int, Tensor] = {}
        for indices, pack in self.packs:
            with using(self.model), torch.inference_mode():
                log_probs = pack.log_probs(plan).cpu()
                rows = [self.rows[i] for i in indices]
                _warn_of_broken(plan, indices, rows, None, log_probs[:, :, 0])
                found.update(zip(indices, log_probs, strict=True))
        return torch.stack([found[i] for i in range(len(found))])

    def score_continuations(self, directions: Sequence[Branch]) -> list[Scores]:
        """As `saepd.score_continuations`, from here on.

        Raises:
            InputError: as `branch`, or prompts that were captured without continuations.
        """
        plan = make_plan(self.model, directions)
        found: dict[int, Scores] = {}
        for indices, pack in self.packs:
            if pack.texts is None:
                raise InputError("these prompts were captured without continuations: give them")
            with using(self.model), torch.inference_mode():
                scores = _scores(pack, plan)
                rows = [self.rows[i] for i in indices]
                _warn_of_broken(plan, indices, rows, pack.texts, [s.log_probs for s in scores])
                found.update(zip(indices, scores, strict=True))
        return [found[i] for i in range(len(found))]

    def readings(self, reader: Gate | Reader) -> Float[Tensor, "prompts ..."]:
        """What a gate says of each prompt, or a reader sees: free where it read while they ran."""
        found: dict[int, Tensor] = {}
        for indices, pack in self.packs:
            amounts = pack.prefix.amounts if isinstance(pack, Pack) else {}
            if reader not in amounts:
                amounts = read_amounts(self.model, [self.rows[i] for i in indices], [reader])
            found.update(zip(indices, amounts[reader].cpu(), strict=True))
        return torch.stack([found[i] for i in range(len(found))])


def branch(
    model: TransformerBridge,
    prompts: Sequence[str],
    directions: Sequence[Branch],
    *,
    reference: bool = False,
) -> Float[Tensor, "batch branches vocab"]:
    """Next-token log-probs of the base model (branch 0) and of every direction (1..K).

    Args:
        model: From `saepd.load_model`.
        prompts: Texts of any lengths.
        directions: One entry a branch; an entry of several directions applies them together.
        reference: Run K+1 hooked rows of every prompt alone: slow, for checking this function.

    Returns:
        Log-probs in nats, on the CPU, in the order of the prompts. A branch that gave no
        distribution is NaN there, and a warning names prompt, branch and block.

    Raises:
        InputError: no prompts, an empty or too long one, no directions, or one that does not fit.
    """
    if not directions:
        raise InputError("no directions: give at least one to branch into")
    return next_token_log_probs(model, prompts, directions, reference=reference)


def next_token_log_probs(
    model: TransformerBridge,
    prompts: Sequence[str],
    directions: Sequence[Branch],
    *,
    reference: bool = False,
) -> Float[Tensor, "batch branches vocab"]:
    """`branch`, but without directions the base is read alone: [batch, 1, vocab]."""
    rows = check_prompts(model, prompts)
    plan = make_plan(model, directions)

    def run(indices: list[int]) -> Sequence[Tensor]:
        chosen = [rows[i] for i in indices]
        with using(model), torch.inference_mode():
            kind = ReferencePack if reference else pack_kind(model, max(map(len, chosen)))
            pack = kind.capture(
                model,
                chosen,
                None,
                plan.first_wide_block,
                plan.specs,
                n_branches=plan.n_branches,
                gates=plan.gates,
            )
            found = list(pack.log_probs(plan).cpu())
            _warn_of_broken(plan, indices, chosen, None, [row[:, 0] for row in found])
            return found

    return torch.stack(
        in_packs(model, pack_costs(model, rows, None, plan.specs, plan.n_branches), run)
    )


def score_continuations(
    model: TransformerBridge,
    prompts: Sequence[str],
    continuations: Sequence[Sequence[str]],
    directions: Sequence[Branch],
) -> list[Scores]:
    """Log-likelihood of each continuation of each prompt, under the base and every branch.

    Without directions only the base is scored. The prompt runs once; its continuations are a few
    more tokens behind it. Where a branch gives no distribution its scores are NaN, and a warning
    names prompt, branch and block.

    Args:
        model: From `saepd.load_model`.
        prompts: Texts of any lengths.
        continuations: For each prompt, the texts that are scored behind it.
        directions: One entry a branch; an entry of several directions applies them together.

    Returns:
        For each prompt, log-likelihoods in nats, [branches, continuations], the base's first.

    Raises:
        InputError: as `branch`, or a prompt without continuations.
    """
    rows = check_prompts(model, prompts)
    texts = check_continuations(model, prompts, rows, continuations)
    return score_tokens(model, rows, texts, directions)


def score_tokens(
    model: TransformerBridge,
    rows: Sequence[list[int]],
    texts: Sequence[Texts],
    directions: Sequence[Branch],
) -> list[Scores]:
    """`score_continuations` of prompts and texts that are token ids already.

    Args:
        model: From `saepd.load_model`.
        rows: Token ids of each prompt.
        texts: Token ids of each text behind it; none may be empty.
        directions: One entry a branch; none to score the base alone.

    Raises:
        InputError: a direction that does not fit, or a text that the context has no room for.
    """
    plan = make_plan(model, directions)
    check_lengths(model, rows, room=[max(map(len, own)) for own in texts])

    def run(indices: list[int]) -> list[Scores]:
        with using(model), torch.inference_mode():
            chosen, own = [rows[i] for i in indices], [texts[i] for i in indices]
            pack = pack_kind(model, longest(chosen, own)).capture(
                model,
                chosen,
                own,
                plan.first_wide_block,
                plan.specs,
                n_branches=plan.n_branches,
                gates=plan.gates,
            )
            scores = _scores(pack, plan)
            _warn_of_broken(plan, indices, chosen, own, [s.log_probs for s in scores])
            return scores

    return in_packs(model, pack_costs(model, rows, texts, plan.specs, plan.n_branches), run)


def capture_prompts(
    model: TransformerBridge,
    prompts: Sequence[str],
    hook_name: str,
    *,
    positions: str = DEFAULT_POSITIONS,
    continuations: Sequence[Sequence[str]] | None = None,
    gates: Sequence[Gate | Reader] = (),
    progress: Progress | None = None,
) -> CapturedPrompts:
    """Run prompts as far as no direction at a site (or above) and at some positions changes them.

    Args:
        model: From `saepd.load_model`.
        prompts: Texts of any lengths.
        hook_name: The lowest site that directions will edit.
        positions: The earliest positions that they will edit; see `saepd.models.positions`.
        continuations: What is to be scored after each prompt, if anything.
        gates: What reads the prompts while they run.
        progress: Told now and then how many prompts are done, and of how many.

    Returns:
        The prompts, whose `branch` and `score_continuations` take directions as often as you like.

    Raises:
        InputError: a prompt that cannot be run, one without continuations, or an unknown site.
    """
    check_site(model, hook_name)
    parse_positions(positions)
    rows = check_prompts(model, prompts)
    texts = (
        None if continuations is None else check_continuations(model, prompts, rows, continuations)
    )
    block, _ = split_at(model, [hook_name])
    packs: list[tuple[list[int], AnyPack]] = []

    def run(indices: list[int]) -> list[int]:
        own = None if texts is None else [texts[i] for i in indices]
        chosen = [rows[i] for i in indices]
        with using(model):
            kind = pack_kind(model, longest(chosen, own))
            pack = kind.capture(model, chosen, own, block, [positions], gates=gates)
            packs.append((indices, pack))
        return indices

    # How many branches will follow is not known: packs of a few leave them room.
    costs = pack_costs(model, rows, texts, [positions], _ROOM_FOR_BRANCHES)
    in_packs(model, costs, run, progress=progress)
    return CapturedPrompts(model, rows, packs)


def _warn_of_broken(
    plan: Plan,
    indices: Sequence[int],
    rows: Sequence[list[int]],
    texts: Sequence[Texts] | None,
    values: Sequence[Tensor] | Tensor,
) -> None:
    """Say which prompts have NaN among their values, and where it began; the others are right."""
    for i, value in enumerate(values):
        broken = value.isnan()
        if bool(broken.any()):
            text: list[int] = []
            if texts is not None:
                text = texts[i][int(broken.any(0).int().argmax())]
            said = said_broken(plan, rows[i] + text, len(rows[i]))
            warnings.warn(f"prompt {indices[i]}: {said}", stacklevel=2)


def _scores(pack: AnyPack, plan: Plan) -> list[Scores]:
    assert pack.texts is not None
    return [
        Scores(scores.cpu(), [len(text) for text in own])
        for scores, own in zip(pack.scores(plan), pack.texts, strict=True)
    ]
