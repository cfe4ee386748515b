"""Opinion surveys in other people's files: gold distributions joined into items.

Two forms are read, told apart by their columns. In the prepared one (modular_pluralism) a row is
one question and one perspective: ``question``, ``options``, ``attribute`` (the perspective) and
``gold_distribution``, where the question is framed as ``Question: ... Options: A. ... Answer:``;
the frame is taken off. In the form of the Hugging Face dataset Anthropic/llm_global_opinions a row
is one question: ``question``, ``options``, ``selections`` (perspective -> share of each option) and
``source``, which becomes the topic; shares may also be a dict from option to share. In both, lists
and dicts may be text as JSON writes or Python prints them.

A gold that cannot be used is left out, and why is counted, one for each question and perspective.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saepd.common.errors import InputError
from saepd.common.messages import shortened
from saepd.feedback.schema import Item
from saepd.feedback.texts import fingerprint
from saepd.tasks.ordinal import ordinal_items
from saepd.tasks.published.sources import BadField, clean, literal_in, parsed, read_table, text_in
from saepd.tasks.task import OPINION_METRICS, Task, Wording

NO_GOLD = "no gold"
PERCENTAGES = "shares that sum to 100: divide percentages by 100"
FEW_OPTIONS = "fewer than two options"
REPEATED_OPTIONS = "options that repeat or are empty"
WRONG_LENGTH = "not one share for each option"
NO_SHARES = "a share that is negative or no finite number"
ALL_ZERO = "shares that are all zero"
WRONG_SUM = "shares that do not sum to .98-1.02"
GIVEN_BEFORE = "question and perspective given before"
DAMAGED_OPTION = "an option its source misread, its share lost"

_FRAME = ("Question:", "\nOptions:", "\nAnswer:")


@dataclass(frozen=True)
class Gold:
    """What one perspective answers to one question, as the source has it; shares unchecked."""

    question: str
    options: tuple[str, ...]
    perspective: str
    shares: tuple[float, ...]
    topic: str

    @property
    def item(self) -> str:
        """Id of the question: the same for every perspective, wherever it stands in its file."""
        return f"{fingerprint(self.question, *self.options):016x}"


def opinion_task(name: str, path: Path, wording: Callable[[Collection[str]], Wording]) -> Task:
    """The task that a file in one of the two forms describes.

    Args:
        name: Name of the task.
        path: A .json, .jsonl or .csv file.
        wording: The wording for the perspectives there are.

    Raises:
        InputError: the file cannot be read, is in neither form, or has malformed rows.
    """
    rows = read_table(path, ["question", "options"])
    first = next((row for _, row in rows if isinstance(row, dict)), {})
    if "selections" in first:
        golds = parsed(path, rows, _published)
    elif first and not {"attribute", "gold_distribution"} <= first.keys():
        raise InputError(
            f"{path}: no column selections, nor attribute and gold_distribution: use the form of "
            "llm_global_opinions or of modular_pluralism"
        )
    else:
        golds = parsed(path, rows, _prepared)
    items, left_out = _joined(gold for row in golds for gold in row)
    return Task(
        name=name,
        items=items,
        wording=wording({perspective for item in items for perspective in item.distributions}),
        metrics=OPINION_METRICS,
        ordinal=ordinal_items(items),
        left_out=left_out,
    )


def bare_question(text: str) -> str:
    """The question without the frame that lists its options, if it has one."""
    text = text.strip()
    start, options, end = _FRAME
    cut = text.rfind(options)
    is_framed = text.startswith(start) and text.endswith(end) and cut >= len(start)
    return text[len(start) : cut].strip() if is_framed else text


def _prepared(row: dict[str, Any]) -> list[Gold]:
    question = clean(bare_question(text_in(row, "question")), "question")
    shares: tuple[float, ...] = ()
    if not _is_absent(row.get("gold_distribution")):
        shares = _shares(literal_in(row, "gold_distribution", list), "gold_distribution")
    return [Gold(question, _options(row), text_in(row, "attribute"), shares, "")]


def _published(row: dict[str, Any]) -> list[Gold]:
    question = clean(bare_question(text_in(row, "question")), "question")
    topic = clean(str(row["source"]), "source") if row.get("source") else ""
    golds: list[Gold] = []
    options = _options(row)
    for perspective, given in literal_in(row, "selections", dict).items():
        name = clean(str(perspective), "selections")
        shares = [] if _is_absent(given) else given
        if isinstance(given, dict):
            texts = {str(option).strip(): share for option, share in given.items()}
            if texts.keys() != set(options):
                raise BadField(
                    "selections",
                    f"the shares of {shortened(name)} are of {shortened(list(texts))}, which are "
                    "not the options: give one of each",
                )
            shares = [texts[option] for option in options]
        if not isinstance(shares, list):
            raise BadField("selections", f"{shortened(given)} is not a list: give shares of each")
        golds.append(Gold(question, options, name, _shares(shares, "selections"), topic))
    return golds


def _is_absent(value: object) -> bool:
    """Whether a value is one of the forms in which a file says that there is none."""
    is_nan = isinstance(value, float) and math.isnan(value)
    return value is None or is_nan or (isinstance(value, str) and value.strip() in ("", "nan"))


def _options(row: dict[str, Any]) -> tuple[str, ...]:
    # Some surveys answer on a scale of bare numbers.
    texts = (str(option) for option in literal_in(row, "options", list))
    return tuple(clean(text, "options") if text.strip() else "" for text in texts)


def _shares(values: list[Any], field: str) -> tuple[float, ...]:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise BadField(field, f"{shortened(value)} is not a number: write one")
    try:
        return tuple(math.nan if value is None else float(value) for value in values)
    except OverflowError:
        raise BadField(field, "a share is larger than any number: write shares") from None


def _joined(golds: Iterable[Gold]) -> tuple[tuple[Item, ...], dict[str, int]]:
    """The items, in the order in which their questions first stand, and what was left out."""
    left_out: Counter[str] = Counter()
    questions: dict[str, dict[str, Gold]] = {}
    for gold in golds:
        known = questions.get(gold.item, {})
        if reason := _fault(gold) or (GIVEN_BEFORE if gold.perspective in known else ""):
            left_out[reason] += 1
        else:
            questions.setdefault(gold.item, {})[gold.perspective] = gold
    items: list[Item] = []
    for id_, by_perspective in questions.items():
        first = next(iter(by_perspective.values()))
        if _is_damaged(first.options, [gold.shares for gold in by_perspective.values()]):
            left_out[DAMAGED_OPTION] += len(by_perspective)
            continue
        golds_of_item = {name: gold.shares for name, gold in by_perspective.items()}
        items.append(
            Item(
                id=id_,
                prompt=first.question,
                options=first.options,
                topic=first.topic,
                distributions=golds_of_item,
            )
        )
    return tuple(items), dict(left_out)


def _fault(gold: Gold) -> str:
    """Why a gold cannot be used, or nothing."""
    if len(gold.options) < 2:
        return FEW_OPTIONS
    if len(set(gold.options)) < len(gold.options) or "" in gold.options:
        return REPEATED_OPTIONS
    if not gold.shares:
        return NO_GOLD
    if len(gold.shares) != len(gold.options):
        return WRONG_LENGTH
    if not all(math.isfinite(share) and share >= 0 for share in gold.shares):
        return NO_SHARES
    if not any(gold.shares):
        return ALL_ZERO
    total = math.fsum(gold.shares) if max(gold.shares) < 1e9 else math.inf
    if abs(total - 100) <= 2:
        return PERCENTAGES
    # The bounds themselves are in, whichever way they round.
    return "" if abs(total - 1) < 0.02 + 1e-9 else WRONG_SUM


def _is_damaged(options: tuple[str, ...], golds: list[tuple[float, ...]]) -> bool:
    """Whether an option nobody chose is a piece of another, kept its opening quote, or is "None".

    OpinionQA as prepared took its options out of printed lists in ways that cut "Important, but not
    essential" into two and left quotes on options with an apostrophe in their list, and took the
    answer "None" for a missing one. No answer matched such a text, so that the rest was scaled to
    sum to 1 without a share that may well have been the largest: the gold is wrong, and not to be
    mended.
    """
    unchosen = [not any(shares) for shares in zip(*golds, strict=True)]

    def is_cut(index: int) -> bool:
        here, after = options[index : index + 2]
        return unchosen[index + 1] and after[0].islower() and not here[0].islower()

    return any(
        unchosen[i]
        and (
            option[0] in "'\""
            or option.lower() in ("none", "nan", "n/a")
            or (i + 1 < len(options) and is_cut(i))
        )
        for i, option in enumerate(options)
    )
