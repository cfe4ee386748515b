"""Split items by whole questions, so that no question is on both sides of a comparison.

Two items are the same question where their prompts differ in case, spacing and punctuation at most,
whatever their ids and options are; and where the caller puts them in one group, as test cases made
from one template.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from saepd.common.errors import InputError
from saepd.feedback.schema import Item
from saepd.feedback.texts import fingerprint

_NO_GROUPS: Mapping[str, str] = {}


def question_key(prompt: str) -> str:
    """What prompts of the same question have in common: their words, in lower case."""
    text = unicodedata.normalize("NFKC", prompt).casefold()
    return re.sub(r"[\W_]+", " ", text).strip() or text


def question_of(items: Sequence[Item], groups: Mapping[str, str] = _NO_GROUPS) -> dict[str, int]:
    """Item id -> number of its whole question, which a split and a bootstrap draw keep together.

    Args:
        items: Questions with ids that differ.
        groups: Item id -> group that a split must not take apart, as for `split_questions`.
    """
    questions = enumerate(_questions(items, groups))
    return {item.id: number for number, own in questions for item in own}


def split_questions(
    items: Sequence[Item],
    test_share: float,
    seed: int,
    groups: Mapping[str, str] = _NO_GROUPS,
    *,
    keep: int = 0,
    answered: Mapping[str, Mapping[str, int]] | None = None,
) -> tuple[list[str], list[str]]:
    """Split items in two by whole questions, every topic on both sides in the same proportion.

    The split depends on the questions and the seed, not on the order of the items.

    Args:
        items: Questions with ids that differ.
        test_share: Share of the questions that are for testing, in (0, 1).
        seed: Any integer.
        groups: Item id -> name of a group that must stay together, as ``Task.groups``; an item
            that is not in it is held together with items of the same prompt only.
        keep: A question is for testing only while every perspective that answered it keeps this
            many answers to others on the training side.
        answered: Item id -> perspective -> answers of its to the item, which ``keep`` counts; if
            None, one for each prompt of which there is a gold distribution.

    Returns:
        (training ids, test ids), each in the items' order. Without ``keep`` the test side has
        ``test_share`` of all questions, rounded, and of each topic's to within one; a question
        that has to stay is replaced by the next one that may go.

    Raises:
        InputError: test_share is out of range, or a side would have no question.
    """
    if not 0 < test_share < 1:
        raise InputError(f"test_share is {test_share}: it must be between 0 and 1")

    def place(question: list[Item]) -> tuple[int, str, int]:
        # Hashes rather than a shuffle: a question's place does not depend on the other questions.
        topic, name = min((item.topic, item.id) for item in question)
        return fingerprint(str(seed), topic), topic, fingerprint(str(seed), name)

    questions = sorted(_questions(items, groups), key=place)
    answer_counts = [_answers(question, answered) for question in questions]
    left = sum(answer_counts, Counter())
    test: set[str] = set()
    n_taken = 0
    # Evenly spaced along the sorted topics: each topic gets its share, and so does the whole.
    for position, (question, counts) in enumerate(zip(questions, answer_counts, strict=True)):
        due = math.floor((position + 1) * test_share + 0.5) > n_taken
        if due and all(left[name] - n >= keep for name, n in counts.items()):
            test |= {item.id for item in question}
            left -= counts
            n_taken += 1
    ids = [item.id for item in items]
    if not test or len(test) == len(ids):
        clause = f", where each perspective keeps {keep} for training," if keep else ""
        raise InputError(
            f"a test share of {test_share} of {len(questions)} question(s){clause} leaves one side "
            f"empty: use another share, {'less feedback, ' if keep else ''}or more questions"
        )
    return [id_ for id_ in ids if id_ not in test], [id_ for id_ in ids if id_ in test]


def _answers(
    question: Sequence[Item], answered: Mapping[str, Mapping[str, int]] | None
) -> Counter[str]:
    """Perspective -> how many answers of its there are to the prompts in here."""
    if answered is not None:
        return sum((Counter(answered.get(item.id, {})) for item in question), Counter())
    pairs = {(name, question_key(i.prompt)) for i in question for name in i.distributions}
    return Counter(name for name, _ in pairs)


def _questions(items: Sequence[Item], groups: Mapping[str, str]) -> list[list[Item]]:
    """Items put together that are the same question or of the same group, in order of the first."""
    leader: dict[tuple[str, str], tuple[str, str]] = {}

    def find(key: tuple[str, str]) -> tuple[str, str]:
        while leader.setdefault(key, key) != key:
            key = leader[key]
        return key

    # An item's group joins what its prompt alone would keep apart, and the other way round.
    for item in items:
        if item.id in groups:
            leader[find(("group", groups[item.id]))] = find(("prompt", question_key(item.prompt)))
    questions: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        questions.setdefault(find(("prompt", question_key(item.prompt))), []).append(item)
    return list(questions.values())
