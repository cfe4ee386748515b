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
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from saepd.common.errors import InputError
from saepd.feedback.schema import Item, fingerprint

_NO_GROUPS: Mapping[str, str] = {}


def question_key(prompt: str) -> str:
    """What prompts of the same question have in common: their words, in lower case."""
    text = unicodedata.normalize("NFKC", prompt).casefold()
    return re.sub(r"[\W_]+", " ", text).strip() or text


def folds(items: Sequence[Item], n_folds: int, seed: int) -> list[list[str]]:
    """Split items for cross-validation by whole questions, every topic spread over all folds.

    Args:
        items: Questions with ids that differ.
        n_folds: 2 or more, and no more than the smallest topic has questions.
        seed: Any integer from 0.

    Returns:
        The item ids of each fold. Folds differ by one question at most, in each topic as in all.

    Raises:
        InputError: n_folds is out of range.
    """
    topics: dict[str, list[list[str]]] = {}
    for question in _questions(items, _NO_GROUPS):
        topics.setdefault(question[0].topic, []).append([item.id for item in question])
    most = min(map(len, topics.values()), default=0)
    if not 2 <= n_folds <= most:
        raise InputError(
            f"cannot split into {n_folds} folds: use 2 or more, and at most {most}, the number of "
            "questions of the smallest topic"
        )
    rng = np.random.default_rng(seed)
    dealt = [ids[i] for ids in topics.values() for i in rng.permutation(len(ids))]
    return [[id_ for ids in dealt[start::n_folds] for id_ in ids] for start in range(n_folds)]


def split_questions(
    items: Sequence[Item],
    test_share: float,
    seed: int,
    groups: Mapping[str, str] = _NO_GROUPS,
    *,
    keep: int = 0,
    answered: Mapping[str, Collection[str]] | None = None,
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
            many others on the training side; items with the same prompt count once.
        answered: Item id -> perspectives that ``keep`` is about; those with a gold distribution of
            the item if None.

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
    asked = [_answers(question, answered) for question in questions]
    left = sum(asked, Counter())
    test: set[str] = set()
    n_taken = 0
    # Evenly spaced along the sorted topics: each topic gets its share, and so does the whole.
    for position, (question, own) in enumerate(zip(questions, asked, strict=True)):
        due = math.floor((position + 1) * test_share + 0.5) > n_taken
        if due and all(left[name] - n >= keep for name, n in own.items()):
            test |= {item.id for item in question}
            left -= own
            n_taken += 1
    ids = [item.id for item in items]
    if not test or len(test) == len(ids):
        kept = f", where each perspective keeps {keep} for training," if keep else ""
        raise InputError(
            f"a test share of {test_share} of {len(questions)} question(s){kept} leaves one side "
            f"empty: use another share, {'less feedback, ' if keep else ''}or more questions"
        )
    return [id_ for id_ in ids if id_ not in test], [id_ for id_ in ids if id_ in test]


def _answers(
    question: Sequence[Item], answered: Mapping[str, Collection[str]] | None
) -> Counter[str]:
    """Perspective -> how many of the prompts in here it has answered."""
    pairs = {
        (name, question_key(item.prompt))
        for item in question
        for name in (item.distributions if answered is None else answered.get(item.id, ()))
    }
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
