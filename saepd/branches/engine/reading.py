"""What gates say of a batch's prompts: read from the run that captures them where it comes by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saepd.branches.engine.columns import Columns
from saepd.directions.gate import Amounts, Gate, Reader, read_amounts
from saepd.directions.sites import hook_point
from saepd.models.sites import SiteBatch
from saepd.models.tokens import PromptBatch

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@contextmanager
def reading(
    model: TransformerBridge, columns: Columns, gates: Sequence[Gate | Reader], block: int
) -> Iterator[Amounts]:
    """Let gates read what passes their sites inside the block of this context.

    There, all blocks below ``block`` must run unsteered on every column, in order. Gates of later
    blocks read the prompts in a run of their own.

    Args:
        model: The language model.
        columns: The batch.
        gates: The gates.
        block: The first block that need not run.

    Yields:
        What gates say of each prompt, complete at the end.
    """
    amounts: Amounts = {}
    early = [gate for gate in gates if gate.block < block]
    parts: dict[str, list[Tensor]] = {gate.hook_name: [] for gate in early}
    with ExitStack() as stack:
        for name, seen in parts.items():

            def hold(_site: object, _args: object, h: Tensor, seen: list[Tensor] = seen) -> None:
                seen.append(h)

            stack.callback(hook_point(model, name).register_forward_hook(hold).remove)
        yield amounts
    n = columns.n_prompt
    held = {name: torch.cat(seen, dim=1)[:, :n] for name, seen in parts.items() if seen}
    prompts = PromptBatch(columns.tokens[:, :n], columns.attention)
    batch = SiteBatch(model, list(range(len(columns.tokens))), prompts, held)
    amounts |= {gate: gate.amount(gate.reading(batch)) for gate in early if gate.hook_name in held}
    amounts |= amounts_of(model, columns, [gate for gate in gates if gate not in amounts])


def amounts_of(
    model: TransformerBridge, columns: Columns, gates: Sequence[Gate | Reader]
) -> Amounts:
    """What gates say of each prompt of a batch, which runs for them up to their sites."""
    prompts = columns.tokens[:, : columns.n_prompt]
    pairs = zip(prompts, columns.attention, strict=True) if gates else ()
    return read_amounts(model, [tokens[real.bool()].tolist() for tokens, real in pairs], gates)
