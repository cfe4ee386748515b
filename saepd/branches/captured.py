"""Prompts that have run as far as directions leave them alone, for many directions after that.

Other directions and coefficients over the same prompts then cost only the part of the model above
the site, from the first edited token on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from saepd.branches.engine.pack import Pack, longest, pack_costs
from saepd.branches.engine.plan import (
    Branch,
    Plan,
    check_continuations,
    check_prompts,
    make_plan,
    split_at,
)
from saepd.branches.fast_path import pack_kind
from saepd.branches.pack_results import AnyPack, Scores, next_tokens, scores
from saepd.directions.gate import Gate, Reader, read_amounts
from saepd.directions.modes import DEFAULT_POSITIONS
from saepd.directions.sites import check_site
from saepd.models.batching import Progress, in_packs
from saepd.models.in_use import using
from saepd.models.position_specs import parse_positions

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

_Result = TypeVar("_Result")

# How many branches captured prompts are packed for.
_ROOM_FOR_BRANCHES = 8


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
        return torch.stack(self._read(directions, next_tokens))

    def score_continuations(self, directions: Sequence[Branch]) -> list[Scores]:
        """As `saepd.score_continuations`, from here on.

        Raises:
            InputError: as `branch`, or prompts that were captured without continuations.
        """
        return self._read(directions, scores)

    def _read(
        self,
        directions: Sequence[Branch],
        read: Callable[[AnyPack, Plan, Sequence[int], Sequence[list[int]]], list[_Result]],
    ) -> list[_Result]:
        """What is read of each prompt, in their order."""
        plan = make_plan(self.model, directions)
        by_prompt: dict[int, _Result] = {}
        for indices, pack in self.packs:
            rows = [self.rows[i] for i in indices]
            with using(self.model), torch.inference_mode():
                by_prompt.update(zip(indices, read(pack, plan, indices, rows), strict=True))
        return [by_prompt[i] for i in range(len(by_prompt))]

    def readings(self, reader: Gate | Reader) -> Float[Tensor, "prompts ..."]:
        """What a gate says of each prompt, or a reader sees: free where it read while they ran."""
        readings: dict[int, Tensor] = {}
        for indices, pack in self.packs:
            amounts = pack.prefix.amounts if isinstance(pack, Pack) else {}
            if reader not in amounts:
                amounts = read_amounts(self.model, [self.rows[i] for i in indices], [reader])
            readings.update(zip(indices, amounts[reader].cpu(), strict=True))
        return torch.stack([readings[i] for i in range(len(readings))])


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
        its_texts = None if texts is None else [texts[i] for i in indices]
        chosen = [rows[i] for i in indices]
        with using(model):
            kind = pack_kind(model, longest(chosen, its_texts))
            pack = kind.capture(model, chosen, its_texts, block, [positions], gates=gates)
            packs.append((indices, pack))
        return indices

    # How many branches will follow is not known: packs of a few leave them room.
    costs = pack_costs(model, rows, texts, [positions], _ROOM_FOR_BRANCHES)
    in_packs(model, costs, run, progress=progress)
    return CapturedPrompts(model, rows, packs)
