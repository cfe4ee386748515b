"""Prove, once for a model, that the fast path gives what one text after the other gives.

The fast path shares work between branches, prompts and texts: padding, columns side by side, one
cache. Not every architecture bears that. So before a model is first branched, a few tokens run both
ways (`saepd.branches.engine.reference`); where the two differ, or the fast path fails, the model
runs on the reference from then on, and that is said once. Texts longer than a window of the model
are proven when the first one comes. Verdicts are kept by the weights' fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import warnings
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saepd.branches.engine.columns import prompt_columns
from saepd.branches.engine.decoding import Separate, State, separate, start
from saepd.branches.engine.native import try_native
from saepd.branches.engine.pack import Pack
from saepd.branches.engine.plan import Plan
from saepd.branches.engine.reference import ReferencePack, WholeTexts, whole
from saepd.common.errors import InputError, first_line
from saepd.common.files import write_json
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.directions.sites import check_blocks
from saepd.models.batching import is_out_of_memory
from saepd.models.cache import cache_dir
from saepd.models.device import computing_dtype
from saepd.models.identity import weights_fingerprint

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# How far log-probs (nats) may differ, on top of the same share of their size. Halves differ in the
# second digit with the order of sums alone.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.bfloat16: 0.25, torch.float16: 0.05}

# Of each direction of a probe, over the residual's own norm.
_DOSE = 0.5

_verdicts: weakref.WeakKeyDictionary[Any, dict[str, str]] = weakref.WeakKeyDictionary()


def pack_kind(model: TransformerBridge, longest: int) -> type[Pack] | type[ReferencePack]:
    """How prompts of a model are captured and run: fast where that is proven.

    Args:
        model: The language model.
        longest: Columns of the longest prompt, with all texts that may follow it side by side.
    """
    return Pack if is_proven(model, longest) else ReferencePack


def is_proven(model: TransformerBridge, longest: int) -> bool:
    """Whether the fast path may run texts of so many tokens on this model.

    Raises:
        InputError: even the reference cannot run the model.
    """
    check_blocks(model)
    try_native(model)
    window = _window(model)
    kinds = ["short"] if window is None or longest <= window else ["short", "long"]
    verdicts = _verdicts.setdefault(model, {})
    for kind in kinds:
        if kind not in verdicts:
            verdicts[kind] = _remembered(model, kind)
            if verdicts[kind]:
                name = model.cfg.model_name
                where = "" if kind == "short" else f" on texts longer than its window of {window}"
                warnings.warn(
                    f"{name}: branches run one after the other, slowly{where}, since the fast path "
                    f"does not fit this model: {verdicts[kind]}",
                    stacklevel=2,
                )
        if verdicts[kind]:
            return False
    return True


def _remembered(model: TransformerBridge, kind: str) -> str:
    """Why the fast path does not fit, or nothing; read from the cache, or found out and kept."""
    file = cache_dir() / "branch-proofs" / f"{_key(model)}-{kind}.json"
    try:
        return str(json.loads(file.read_text())["differs"])
    except (OSError, ValueError, KeyError, TypeError):
        differs = _difference(model, kind)
    # A cache that cannot be written costs a second at the next start, and nothing else.
    with suppress(OSError):
        write_json(file, {"model": model.cfg.model_name, "differs": differs})
    return differs


def _key(model: TransformerBridge) -> str:
    hf_model: Any = model.original_model
    weight = next(hf_model.parameters())
    what = [weights_fingerprint(model), hf_model.config.to_json_string(), str(weight.dtype)]
    what += [weight.device.type, str(hf_model.config._attn_implementation), _code()]
    return hashlib.sha256("\n".join(what).encode()).hexdigest()[:24]


@cache
def _code() -> str:
    """What a verdict holds for: the versions of what runs the model, and this engine itself."""
    names = ("torch", "transformers", "transformer-lens")
    digest = hashlib.sha256(" ".join(map(version, names)).encode())
    here = Path(__file__).parent
    for file in [Path(__file__), *sorted((here / "engine").glob("*.py"))]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _difference(model: TransformerBridge, kind: str) -> str:
    """Run the probes both ways; says how they differ, or nothing."""
    tolerance = _TOLERANCE.get(computing_dtype(model.original_model), 1e-4)
    if kind == "short":
        _check_causal(model)
    probes = _short_probes(model) if kind == "short" else _long_probes(model)
    for name, fast, reference in probes:
        right = _run(reference, model)
        try:
            found = fast()
        except Exception as error:
            if is_out_of_memory(error):
                raise
            return f"{name}: {type(error).__name__}: {first_line(error)}"
        for one, other in zip(found, right, strict=True):
            off = (one - other).abs()
            if not bool((off <= tolerance * (1 + other.abs())).all()):
                return f"{name}: off by {float(off.max()):.2g} nats"
    return ""


def _check_causal(model: TransformerBridge) -> None:
    """Refuse models that, whole and alone, read a token in the light of later ones.

    Raises:
        InputError: what such a model says of a prompt depends on what is written behind it.
    """
    tokens, plan = _tokens(model, 24), Plan(model, [])
    tolerance = _TOLERANCE.get(computing_dtype(model.original_model), 1e-4)

    def both() -> list[Tensor]:
        with torch.inference_mode():
            return [whole(plan, tokens[:n], 16)[0, 0] for n in (16, 24)]

    alone, followed = _run(both, model)
    if not bool(((alone - followed).abs() <= tolerance * (1 + alone.abs())).all()):
        raise InputError(
            f"{model.cfg.model_name} is not causal: what it says after a prompt changes with what "
            "is written behind it, so no answer can be scored"
        )


def _run(reference: Callable[[], list[Tensor]], model: TransformerBridge) -> list[Tensor]:
    try:
        return reference()
    except Exception as error:
        if is_out_of_memory(error) or isinstance(error, InputError):
            raise
        raise InputError(
            f"{model.cfg.model_name} cannot be steered: its own forward pass, hooked at its "
            f"blocks, ends in {type(error).__name__}: {first_line(error)}"
        ) from error


_Probe = tuple[str, Callable[[], list[Tensor]], Callable[[], list[Tensor]]]


def _short_probes(model: TransformerBridge) -> list[_Probe]:
    tokens = _tokens(model, 60)
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


def _long_probes(model: TransformerBridge) -> list[_Probe]:
    """Texts longer than a window, and columns that are, though none of their texts is."""
    window = _window(model)
    assert window is not None
    tokens = _tokens(model, window + 48)
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
) -> list[_Probe]:
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
            ids = torch.tensor([_tokens(model, 8)], device=device)
            _run(lambda: [hf_model(input_ids=ids).logits], model)
    finally:
        handle.remove()
    if not norms:
        raise InputError(
            f"{model.cfg.model_name} cannot be steered: its blocks never pass their hook_out"
        )
    return norms[0]


def _tokens(model: TransformerBridge, n: int) -> list[int]:
    """Ids spread over the vocabulary, without special ones."""
    special = {*model.tokenizer.all_special_ids}
    vocab = min(int(model.cfg.d_vocab), len(model.tokenizer))
    plain = [i for i in ((7 + 977 * j) % vocab for j in range(2 * n)) if i not in special]
    return (plain * 2)[:n]


def _window(model: TransformerBridge) -> int | None:
    """Tokens that a block of the model looks back at most; None where all see everything."""
    hf_model: Any = model.original_model
    config = hf_model.config.get_text_config()
    found = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return min((int(w) for w in found if w), default=None)


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
    tokens = torch.tensor(_tokens(source.plan.model, 3 * n_rows), device=source.log_probs.device)
    seen = [source.log_probs]
    for step in range(2):
        source.feed(tokens[step * n_rows : (step + 1) * n_rows])
        seen.append(source.log_probs)
    kept = list(range(1, n_rows))
    source.keep(kept)
    source.feed(tokens[2 * n_rows + 1 :])
    return [*seen, source.log_probs]
