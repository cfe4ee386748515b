"""Everybody's text as it is written: the base, each branch alone, and the merge, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from saepd.branches.engine.plan import Branch, Plan
from saepd.branches.writing.config import SamplingConfig
from saepd.branches.writing.generate import checked_prompts, new_texts, texts_started
from saepd.branches.writing.loop import EndedBy, turns
from saepd.branches.writing.trace import Recorder, Step
from saepd.merge.config import MergeConfig
from saepd.models.tokens import left_blanks

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class Written:
    """What a writer has written so far.

    Attributes:
        writer: 0 is the base, then each branch; the number behind the last branch is the merge.
        text: All that is certain to be part of its text.
        step: How the latest token of the merge came about; None of other writers, and of the token
            that ends the text.
        ended_by: Why the text is over; None while it is not.
    """

    writer: int
    text: str
    step: Step | None
    ended_by: EndedBy | None


def stream_all(
    model: TransformerBridge,
    prompt: str,
    directions: Sequence[Branch],
    merge_config: MergeConfig | None = None,
    sampling: SamplingConfig | None = None,
) -> Iterator[Written]:
    """Stream what the base, every branch and the merge write after a prompt, side by side.

    The texts are those of `generate_branches` and of `generate`. Whoever stops asking for more
    stops the writing.

    Raises:
        InputError: before anything runs, as `generate`.
    """
    merge_config, sampling = merge_config or MergeConfig(), sampling or SamplingConfig()
    plan, [row] = checked_prompts(model, [prompt], directions, sampling, merge_config)
    return _streamed(plan, row, left_blanks(model.tokenizer, prompt), merge_config, sampling)


def _streamed(
    plan: Plan, row: list[int], blanks: str, merge_config: MergeConfig, sampling: SamplingConfig
) -> Iterator[Written]:
    n = plan.n_branches
    merged = texts_started(plan, [row], merge_config, sampling)
    [text], sampler = new_texts(plan, [row], [blanks], sampling)
    apart = texts_started(plan, [row], None, sampling)
    texts, own_sampler = new_texts(plan, [row] * n, [blanks] * n, sampling)
    merging, alone = turns(merged, [text], sampler), turns(apart, texts, own_sampler)
    while merging is not None or alone is not None:
        turn = None if merging is None else next(merging, None)
        if turn is None:
            merging = None
        else:
            recorder = Recorder()
            base = sampler.choose(merged.branches[:, 0], turn.luck)
            recorder.note(turn.texts, merged.branches, turn.scores, turn.tokens, base)
            is_text = text.ended_by in (None, "length", "stop")
            step = recorder.steps(plan.model.tokenizer)[0][0] if is_text else None
            yield Written(n, text.visible, step, text.ended_by)
        turn = None if alone is None else next(alone, None)
        if turn is None:
            alone = None
        else:
            for writer in turn.texts:
                growing = texts[writer]
                yield Written(writer, growing.visible, None, growing.ended_by)
