"""The distinct answers that the branches give to a prompt, and who gives each.

Overton pluralism (Sorensen et al. 2024, arXiv 2402.05070): all answers that people
reasonably hold are laid out, instead of one that stands for them. Here the base and every
perspective's branch write several texts from one run of the prompt; texts that share their words
are one answer (`saepd.metrics.same_answer`), and each answer has the share that the perspectives
give it. Words are not meaning: a text and its denial share nearly all of theirs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from saepd.branches.engine.plan import check_prompts
from saepd.branches.writing.config import DRAWN_AT, OvertonConfig, SamplingConfig
from saepd.branches.writing.generate import generate_branches
from saepd.common.checks import check_part
from saepd.common.errors import InputError
from saepd.common.frames import as_frame
from saepd.common.html import bar, card, note, table
from saepd.directions.accepting import Branches, as_branches
from saepd.metrics.same_answer import cluster_by_f1, token_f1
from saepd.models.batching import Progress

if TYPE_CHECKING:
    import pandas as pd
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class DistinctAnswer:
    """Texts that say the same in about the same words.

    Attributes:
        text: The one of them that is most like the others.
        share: Share of the population that gives this answer: the mean over the perspectives,
            weighted by their shares, of the part of their texts that it is.
        held_by: ``base`` and every perspective -> the part of its texts that are this answer, 0
            where none is. The base has no part in the share.
        texts: Each different text -> how often it was written.
    """

    text: str
    share: float
    held_by: dict[str, float]
    texts: dict[str, int]


@dataclass(frozen=True, repr=False)
class DistinctAnswers:
    """All answers to one prompt. ``dataclasses.asdict`` of it holds JSON values only.

    Attributes:
        prompt: What was answered.
        answers: The answer with the largest share first; those that only the base gives last.
        n_samples: Texts that the base and each perspective wrote.
        n_empty: How many of all texts said nothing, which are left out.
    """

    prompt: str
    answers: tuple[DistinctAnswer, ...]
    n_samples: int
    n_empty: int

    def __repr__(self) -> str:
        lines = (f"  {answer.share:.2f} {answer.text!r}" for answer in self.answers)
        return "\n".join([f"DistinctAnswers(to {self.prompt!r}", *lines]) + ")"

    def as_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)

    def frame(self) -> pd.DataFrame:
        """One row for each answer and who may give it, as a pandas frame.

        Raises:
            InputError: pandas is missing.
        """
        return as_frame(
            [
                {
                    "answer": number,
                    "text": answer.text,
                    "share": answer.share,
                    "perspective": name,
                    "part": part,
                }
                for number, answer in enumerate(self.answers)
                for name, part in answer.held_by.items()
            ]
        )

    def _repr_html_(self) -> str:
        names = list(self.answers[0].held_by) if self.answers else []
        rows = [
            [bar(answer.share, people=True), answer.text, *map(bar, answer.held_by.values())]
            for answer in self.answers
        ]
        empty = f"; {self.n_empty} more said nothing" if self.n_empty else ""
        return card(
            "distinct answers",
            note(f"to {self.prompt!r}, of {self.n_samples} texts of each{empty}"),
            table(["share", "answer", *names], rows),
        )


def distinct_answers(
    model: TransformerBridge,
    prompts: Sequence[str],
    directions: Branches,
    sampling: SamplingConfig | None = None,
    config: OvertonConfig | None = None,
    *,
    progress: Progress | None = None,
) -> list[DistinctAnswers]:
    """Sample texts from the base and all branches, and say which distinct answers they give.

    Args:
        model: From `saepd.load_model`.
        prompts: Texts of any lengths.
        directions: The branches, or a fit.
        sampling: How tokens are drawn, and where a text ends; a temperature of 0.9 by default.
        config: How many texts are drawn, which count as the same answer, and how much each
            perspective counts.
        progress: Told now and then how many texts of the base are done, and of how many.

    Returns:
        In the order of the prompts.

    Raises:
        InputError: as `saepd.generate_branches`, no directions, a temperature of 0 with several
            samples, two branches of one name, or another number of shares than of branches.
    """
    sampling, config = sampling or SamplingConfig(temperature=DRAWN_AT), config or OvertonConfig()
    check_part("sampling", sampling, SamplingConfig)
    check_part("config", config, OvertonConfig)
    branches = as_branches(directions)
    if not branches:
        raise InputError("no directions: give at least one, whose answers are laid out")
    if sampling.temperature == 0 and config.n_samples > 1:
        raise InputError(
            f"at temperature 0 all {config.n_samples} samples of a branch are the same text: give "
            "a temperature such as 0.9, or n_samples 1"
        )
    check_prompts(model, prompts)
    names = [" + ".join(direction.perspective for direction in branch) for branch in branches]
    if twice := [name for name in names if names.count(name) > 1 or name == "base"]:
        raise InputError(
            f"several branches are called {twice[0]!r}, and answers are told by the name of who "
            "gives them: give each its own"
        )
    if config.shares and len(config.shares) != len(names):
        raise InputError(
            f"{len(config.shares)} shares for {len(names)} perspectives ({', '.join(names)}): give "
            "one for each"
        )
    shares = config.shares or (1 / len(names),) * len(names)
    n = config.n_samples
    seeds = [sampling.seed + number for number in range(n)]
    written = generate_branches(
        model,
        [prompt for prompt in prompts for _ in seeds],
        branches,
        sampling,
        seeds=seeds * len(prompts),
        progress=progress,
    )
    by_prompt = []
    for i, prompt in enumerate(prompts):
        drawn = [
            [" ".join(one.text.split()) for one in row] for row in written[i * n : (i + 1) * n]
        ]
        texts = dict(zip(["base", *names], map(list, zip(*drawn, strict=True)), strict=True))
        answers = _answers(texts, dict(zip(names, shares, strict=True)), config.similarity)
        n_empty = sum(not text for of_branch in texts.values() for text in of_branch)
        by_prompt.append(DistinctAnswers(prompt, answers, n, n_empty))
    return by_prompt


def _answers(
    texts: Mapping[str, Sequence[str]], shares: Mapping[str, float], similarity: float
) -> tuple[DistinctAnswer, ...]:
    """Texts of the base and of each perspective, put together where they say the same."""
    counters = {name: Counter(text for text in drawn if text) for name, drawn in texts.items()}
    # Round by round, so that whose text is a cluster's first does not depend on who comes first.
    order = dict.fromkeys(text for drawn in zip(*texts.values(), strict=True) for text in drawn)
    unique = [text for text in order if text]
    clusters: dict[int, list[str]] = {}
    for text, centre in zip(unique, cluster_by_f1(unique, similarity), strict=True):
        clusters.setdefault(centre, []).append(text)
    # A perspective that wrote nothing gives no answer, and the others' shares are of the rest.
    whole = sum(share for name, share in shares.items() if counters[name])
    answers = []
    for members in clusters.values():
        parts = {
            name: sum(counts[text] for text in members) / counts.total() if counts else 0.0
            for name, counts in counters.items()
        }
        share = sum(shares[name] * parts[name] for name in shares) / whole if whole else 0.0
        counted = {text: sum(counts[text] for counts in counters.values()) for text in members}
        answers.append(DistinctAnswer(_most_alike(counted), share, parts, counted))
    return tuple(sorted(answers, key=lambda answer: (-answer.share, -answer.held_by["base"])))


def _most_alike(texts: Mapping[str, int]) -> str:
    """The text that is most like the others, each of which counts as often as it was written."""
    return max(texts, key=lambda one: sum(n * token_f1(one, other) for other, n in texts.items()))
