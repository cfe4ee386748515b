"""Runs that show whether the fast path fits a model: each fast, and text after text.

They are as few and as short as reach every part of the engine: prompts of different lengths side by
side, options behind them, branches that write early and late, text written together and apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from saepd.branches.engine.columns import prompt_columns
from saepd.branches.engine.decoding import Separate, State, separate, start
from saepd.branches.engine.pack import Pack
from saepd.branches.engine.plan import Plan
from saepd.branches.engine.reference import ReferencePack, WholeTexts
from saepd.common.errors import InputError, first_line
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.models.batching import is_out_of_memory
from saepd.models.windows import attention_windows

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# What is run, on the fast path, and on the reference.
Probe: TypeAlias = tuple[str, Callable[[], list[Tensor]], Callable[[], list[Tensor]]]

# Of each direction of a probe, over the residual's own norm.
_DOSE = 0.5


def run_reference(reference: Callable[[], list[Tensor]], model: TransformerBridge) -> list[Tensor]:
    """What the reference gives.

    Raises:
        InputError: it fails, so that nothing can run the model.
    """
    try:
        return reference()
    except Exception as error:
        if is_out_of_memory(error) or isinstance(error, InputError):
            raise
        raise InputError(
            f"{model.cfg.model_name} cannot be steered: its own forward pass, hooked at its "
            f"blocks, ends in {type(error).__name__}: {first_line(error)}"
        ) from error


def short_probes(model: TransformerBridge) -> list[Probe]:
    """Texts within any window, in every way that the engine runs them."""
    tokens = probe_tokens(model, 60)
    rows = [tokens[:14], tokens[14:25]]
    one = rows[:1]
    texts = [[tokens[25:28], tokens[25:26] + tokens[28:30]], [tokens[30:32], tokens[33:36]]]
    middle, last = len(model.blocks) // 2, len(model.blocks) - 1
    late = _plan(model, "answer", [f"blocks.{middle}.hook_out", f"blocks.{last}.hook_out"])
    early = _plan(model, "all", [f"blocks.{middle}.hook_out", f"blocks.{middle}.hook_in"])
    return [
        *_pack_probes(model, "prompts and options at the answer", rows, texts, late),
        *_pack_probes(model, "prompts and options at all positions", rows, texts, early),
        ("text written together", lambda: _merged(late, rows), lambda: _merged_whole(late, rows)),
        # One prompt, since the reference reads each of its branches' texts anew for every token.
        ("text written apart", lambda: _apart(early, one), lambda: _apart_whole(early, one)),
    ]


def long_probes(model: TransformerBridge) -> list[Probe]:
    """Texts longer than a window, and columns that are, though none of their texts is."""
    window = min(attention_windows(model.original_model))
    tokens = probe_tokens(model, window + 48)
    rows = [tokens[: window + 6], tokens[6:30]]
    texts = [[tokens[30:32], tokens[33:36]]] * 2
    near = [tokens[: max(9, window - 4)]]
    wide = [[tokens[i : i + 4] for i in range(20, 36, 4)]]
    last = len(model.blocks) - 1
    late = _plan(model, "answer", [f"blocks.{last // 2}.hook_out"])
    early = _plan(model, "all", [f"blocks.{last // 2}.hook_out"])
    return [
        *_pack_probes(model, "prompts beyond the window", rows, texts, late),
        *_pack_probes(model, "prompts steered beyond the window", rows, texts, early),
        *_pack_probes(model, "options beyond the window", near, wide, late),
        ("text beyond it", lambda: _merged(late, rows), lambda: _merged_whole(late, rows)),
    ]


def _pack_probes(
    model: TransformerBridge,
    name: str,
    rows: list[list[int]],
    texts: list[list[list[int]]],
    plan: Plan,
) -> list[Probe]:
    def scores(kind: type[Pack] | type[ReferencePack], n_branches: int | None) -> list[Tensor]:
        block, specs = plan.first_wide_block, plan.specs
        with torch.inference_mode():
            pack = kind.capture(model, rows, texts, block, specs, n_branches=n_branches)
            return pack.scores(plan)

    def log_probs(kind: type[Pack] | type[ReferencePack]) -> list[Tensor]:
        block, specs, n_branches = plan.first_wide_block, plan.specs, plan.n_branches
        with torch.inference_mode():
            pack = kind.capture(model, rows, None, block, specs, n_branches=n_branches)
            return [pack.log_probs(plan)]

    right: list[Tensor] = []

    def reference() -> list[Tensor]:
        right.extend(scores(ReferencePack, None))
        return right

    return [
        (name, lambda: scores(Pack, plan.n_branches), reference),
        (f"{name}, captured before", lambda: scores(Pack, None), lambda: right),
        (f"{name}, next tokens", lambda: log_probs(Pack), lambda: log_probs(ReferencePack)),
    ]


def _plan(model: TransformerBridge, positions: str, hook_names: Sequence[str]) -> Plan:
    """Branches that write a random vector each, of a size that the residual stream notices."""
    width = int(model.cfg.d_model)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(len(hook_names), width, generator=generator) / width**0.5
    size = _DOSE * _residual_norm(model)
    return Plan(
        model,
        [
            [Direction(f"probe {i}", hook_name, AddVector(size * vector), positions)]
            for i, (hook_name, vector) in enumerate(zip(hook_names, vectors, strict=True))
        ],
    )


def _residual_norm(model: TransformerBridge) -> float:
    """Of the middle block's output, over a few tokens but the first."""
    norms: list[float] = []

    def note(_module: object, _args: object, h: Tensor) -> None:
        norms.append(float(h[:, 1:].float().norm(dim=-1).mean()))

    hook: Any = model.blocks[len(model.blocks) // 2].hook_out
    handle = hook.register_forward_hook(note)
    device = next(model.original_model.parameters()).device
    hf_model: Any = model.original_model
    try:
        with torch.inference_mode():
            ids = torch.tensor([probe_tokens(model, 8)], device=device)
            run_reference(lambda: [hf_model(input_ids=ids).logits], model)
    finally:
        handle.remove()
    if not norms:
        raise InputError(
            f"{model.cfg.model_name} cannot be steered: its blocks never pass their hook_out"
        )
    return norms[0]


def probe_tokens(model: TransformerBridge, n: int) -> list[int]:
    """Ids spread over the vocabulary, without special ones."""
    special = {*model.tokenizer.all_special_ids}
    vocab = min(int(model.cfg.d_vocab), len(model.tokenizer))
    plain = [i for i in ((7 + 977 * j) % vocab for j in range(2 * n)) if i not in special]
    return (plain * 2)[:n]


def _merged(plan: Plan, rows: list[list[int]]) -> list[Tensor]:
    return _written(start(plan, prompt_columns(plan.model, rows)), len(rows))


def _merged_whole(plan: Plan, rows: list[list[int]]) -> list[Tensor]:
    branches = [list(range(plan.n_branches)) for _ in rows]
    return _written(WholeTexts(plan, [*map(list, rows)], [*map(len, rows)], branches), len(rows))


def _apart(plan: Plan, rows: list[list[int]]) -> list[Tensor]:
    n_rows = len(rows) * plan.n_branches
    return _written(separate(start(plan, prompt_columns(plan.model, rows))), n_rows)


def _apart_whole(plan: Plan, rows: list[list[int]]) -> list[Tensor]:
    n = plan.n_branches
    texts = [list(row) for row in rows for _ in range(n)]
    branches = [[branch] for _ in rows for branch in range(n)]
    source = WholeTexts(plan, texts, [len(row) for row in rows for _ in range(n)], branches)
    return [part.squeeze(1) for part in _written(source, len(texts))]


def _written(source: State | Separate | WholeTexts, n_rows: int) -> list[Tensor]:
    """What each row reads after its prompt, two tokens on, and one more without the first row."""
    tokens = torch.tensor(
        probe_tokens(source.plan.model, 3 * n_rows), device=source.log_probs.device
    )
    seen = [source.log_probs]
    for step in range(2):
        source.feed(tokens[step * n_rows : (step + 1) * n_rows])
        seen.append(source.log_probs)
    kept = list(range(1, n_rows))
    source.keep(kept)
    source.feed(tokens[2 * n_rows + 1 :])
    return [*seen, source.log_probs]
