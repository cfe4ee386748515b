"""Write text from the branches token by token, with one key-value cache for all of them.

=====================  ================================================================
`generate`             after one prompt, what the merged branches write, piece by piece
`generate_batch`       after many prompts, what the merged branches write
`generate_branches`    after many prompts, what the base and each branch write alone
=====================  ================================================================

Merged, every branch reads the same text, and the merge of their next-token distributions writes
it. Unmerged, the branches start from the same run of the prompt and each writes its own text. In
the loop over tokens the host waits for the device once a token: to know what was written.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from saepd.branches.engine.broken import said_broken
from saepd.branches.engine.columns import prompt_columns
from saepd.branches.engine.decoding import separate, start
from saepd.branches.engine.plan import Branch, Plan, check_prompts, make_plan
from saepd.branches.engine.prefix import edit_masks
from saepd.branches.engine.reference import WholeTexts
from saepd.branches.fast_path import is_proven
from saepd.branches.writing.config import SamplingConfig
from saepd.branches.writing.loop import GrowingText, TextRows, ends_of, turns
from saepd.branches.writing.sampling import Sampler
from saepd.branches.writing.trace import Generated, Recorder, Step
from saepd.common.checks import check_part
from saepd.common.errors import InputError
from saepd.merge.config import MergeConfig
from saepd.models.batching import Progress, in_packs, logit_cost
from saepd.models.in_use import using
from saepd.models.position_specs import parse_positions
from saepd.models.tokens import check_lengths, left_blanks

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

__all__ = ["SamplingConfig", "generate", "generate_batch", "generate_branches"]


def generate(
    model: TransformerBridge,
    prompt: str,
    directions: Sequence[Branch],
    merge_config: MergeConfig | None = None,
    sampling: SamplingConfig | None = None,
) -> Iterator[str]:
    """Stream the text that the merged branches write after a prompt.

    Args:
        model: From `saepd.load_model`.
        prompt: Text of any length that the context has room for.
        directions: One entry a branch; an entry of several directions applies them together.
        merge_config: How branches are merged at every token; `MergeConfig` as it is if None.
        sampling: How tokens are drawn, and where the text ends.

    Yields:
        Pieces of whole characters, none of which is taken back: what could be the beginning of a
        stop text waits until it is known not to be.

    Raises:
        InputError: before anything runs, an empty or too long prompt, no directions, or one that
            does not fit; later, a branch that is no distribution.
    """
    merge_config, sampling = merge_config or MergeConfig(), sampling or SamplingConfig()
    plan, [row] = checked_prompts(model, [prompt], directions, sampling, merge_config)
    return _pieces(plan, row, left_blanks(model.tokenizer, prompt), merge_config, sampling)


def generate_batch(
    model: TransformerBridge,
    prompts: Sequence[str],
    directions: Sequence[Branch],
    merge_config: MergeConfig | None = None,
    sampling: SamplingConfig | None = None,
    *,
    trace: bool = False,
    progress: Progress | None = None,
) -> list[Generated]:
    """The texts that the merged branches write after prompts of any lengths.

    Each text ends by itself and is the one that `generate` streams for its prompt alone. Equal
    prompts are continued equally; for other draws change the seed.

    Args:
        model: From `saepd.load_model`.
        prompts: Texts of any lengths.
        directions: One entry a branch; an entry of several directions applies them together.
        merge_config: How the branches become one distribution.
        sampling: How tokens are drawn from it, and where a text ends.
        trace: Say of every token how it came about; see `saepd.branches.writing.trace.Step`.
        progress: Told now and then how many prompts are done, and of how many.

    Returns:
        In the order of the prompts.

    Raises:
        InputError: as `generate`.
    """
    merge_config, sampling = merge_config or MergeConfig(), sampling or SamplingConfig()
    plan, rows = checked_prompts(model, prompts, directions, sampling, merge_config)
    blanks = [left_blanks(model.tokenizer, prompt) for prompt in prompts]

    def run(indices: list[int]) -> list[Generated]:
        chosen = [rows[i] for i in indices]
        merged = texts_started(plan, chosen, merge_config, sampling)
        texts, sampler = new_texts(plan, chosen, [blanks[i] for i in indices], sampling)
        recorder = Recorder()
        for turn in turns(merged, texts, sampler):
            if trace:
                base = sampler.choose(merged.branches[:, 0], turn.luck)
                recorder.note(turn.texts, merged.branches, turn.scores, turn.tokens, base)
        _warn_of_broken(plan, indices, chosen, texts)
        steps = recorder.steps(model.tokenizer)
        return [_generated(text, steps.get(i, ())) for i, text in enumerate(texts)]

    return in_packs(model, _costs(plan, rows, sampling), run, progress=progress)


def generate_branches(
    model: TransformerBridge,
    prompts: Sequence[str],
    directions: Sequence[Branch],
    sampling: SamplingConfig | None = None,
    *,
    seeds: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> list[list[Generated]]:
    """The texts that the base and every branch write on their own, unmerged, from one run.

    Where tokens are drawn, the branches of a prompt share their luck, so texts differ only by what
    the directions do. Without directions only the base writes.

    Args:
        model: From `saepd.load_model`.
        prompts: Texts of any lengths.
        directions: One entry a branch; an entry of several directions applies them together.
        sampling: How tokens are drawn, and where a text ends.
        seeds: Seed of the draws of each prompt, in the place of the sampling's; with it the same
            prompt may be continued in several ways.
        progress: Told now and then how many prompts are done, and of how many.

    Returns:
        For each prompt the base's text, then one for each entry of ``directions``.

    Raises:
        InputError: as `generate`, but for directions, of which there may be none; or another number
            of seeds than of prompts.
    """
    sampling = sampling or SamplingConfig()
    plan, rows = checked_prompts(model, prompts, directions, sampling)
    if seeds is not None and len(seeds) != len(prompts):
        raise InputError(f"{len(seeds)} seeds for {len(prompts)} prompts: give one for each")
    blanks = [left_blanks(model.tokenizer, prompt) for prompt in prompts]

    def run(indices: list[int]) -> list[list[Generated]]:
        chosen = [rows[i] for i in indices]
        apart = texts_started(plan, chosen, None, sampling)
        wide = [i for i in indices for _ in range(plan.n_branches)]
        texts, sampler = new_texts(
            plan,
            [rows[i] for i in wide],
            [blanks[i] for i in wide],
            sampling,
            None if seeds is None else [seeds[i] for i in wide],
        )
        for _ in turns(apart, texts, sampler):
            pass
        _warn_of_broken(plan, wide, [rows[i] for i in wide], texts)
        done = [_generated(text) for text in texts]
        n = plan.n_branches
        return [done[i : i + n] for i in range(0, len(done), n)]

    return in_packs(model, _costs(plan, rows, sampling), run, progress=progress)


def _pieces(
    plan: Plan, row: list[int], blanks: str, merge_config: MergeConfig, sampling: SamplingConfig
) -> Iterator[str]:
    merged = texts_started(plan, [row], merge_config, sampling)
    [text], sampler = new_texts(plan, [row], [blanks], sampling)
    shown = 0
    for _ in turns(merged, [text], sampler):
        visible = text.visible
        if len(visible) > shown:
            yield visible[shown:]
            shown = len(visible)
    if text.ended_by == "broken":
        raise InputError(_broken_message(plan, row, text))


def _warn_of_broken(
    plan: Plan, prompts: Sequence[int], rows: Sequence[list[int]], texts: Sequence[GrowingText]
) -> None:
    """Say which texts ended because a branch gave no distribution; the others are whole."""
    said = set()
    for prompt, row, text in zip(prompts, rows, texts, strict=True):
        if text.ended_by == "broken" and prompt not in said:
            said.add(prompt)
            warnings.warn(f"prompt {prompt}: {_broken_message(plan, row, text)}", stacklevel=3)


def _broken_message(plan: Plan, row: list[int], text: GrowingText) -> str:
    with using(plan.model):
        return said_broken(plan, [*row, *text.tokens], len(row))


def texts_started(
    plan: Plan, rows: list[list[int]], merge: MergeConfig | None, sampling: SamplingConfig
) -> TextRows:
    """Prompts that have been read, by all branches together, or by each apart if none merges."""
    n, longest = plan.n_branches, max(map(len, rows)) + sampling.max_new_tokens
    readers = [[branch] for branch in range(n)] if merge is None else [list(range(n))]
    with using(plan.model):
        if is_proven(plan.model, longest):
            state = start(plan, prompt_columns(plan.model, rows))
            return TextRows(separate(state) if merge is None else state, merge)
        texts = [list(row) for row in rows for _ in readers]
        lengths = [len(row) for row in rows for _ in readers]
        return TextRows(WholeTexts(plan, texts, lengths, readers * len(rows)), merge)


def new_texts(
    plan: Plan,
    rows: list[list[int]],
    blanks: Sequence[str],
    sampling: SamplingConfig,
    seeds: Sequence[int] | None = None,
) -> tuple[list[GrowingText], Sampler]:
    """For every row an empty text behind its prompt's blanks, and what draws its tokens."""
    ends = ends_of(plan.model, sampling)
    texts = [GrowingText(plan.model.tokenizer, ends, blank) for blank in blanks]
    device = next(plan.model.original_model.parameters()).device
    return texts, Sampler(sampling, rows, device, seeds)


def _generated(text: GrowingText, steps: Sequence[Step] = ()) -> Generated:
    assert text.ended_by is not None
    tokens = tuple(text.tokens)
    return Generated(text.visible, tokens, text.ended_by, tuple(steps[: len(tokens)]))


def checked_prompts(
    model: TransformerBridge,
    prompts: Sequence[str],
    directions: Sequence[Branch],
    sampling: SamplingConfig,
    merge_config: MergeConfig | None = None,
) -> tuple[Plan, list[list[int]]]:
    """The branches, and each prompt's token ids; refuses at the door what would fail later."""
    check_part("sampling", sampling, SamplingConfig)
    if merge_config is not None:
        check_part("the merge", merge_config, MergeConfig)
    if merge_config and not directions:
        raise InputError("no directions: give at least one to merge with the base")
    rows = check_prompts(model, prompts)
    check_lengths(model, rows, room=sampling.max_new_tokens)
    plan = make_plan(model, directions)
    weights = merge_config.weights if merge_config else ()
    if weights and len(weights) != plan.n_branches:
        raise InputError(
            f"{len(weights)} weights for {plan.n_branches} branches, base included: give one "
            "for each"
        )
    marked = [spec for spec in plan.specs if parse_positions(spec).kind == "after"]
    for row in rows if marked else []:
        # Before any other prompt runs: a marker that this one does not hold.
        edit_masks(model, prompt_columns(model, [row]), marked)
    return plan, rows


def _costs(plan: Plan, rows: list[list[int]], sampling: SamplingConfig) -> list[int]:
    """Tokens that each prompt keeps in the caches of all its branches at the end, and logits."""
    read = logit_cost(plan.model, plan.n_branches)
    return [plan.n_branches * (len(row) + sampling.max_new_tokens) + read for row in rows]
