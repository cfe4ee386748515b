"""Texts as passages: tokens for the model, pieces of text to show, words to make labels of."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from saepd.common.errors import InputError
from saepd.features.index.config import IndexConfig
from saepd.models.tokens import prompt_ids
from saepd.saes.corpus import split_passages

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")  # noqa: RUF001
NO_WORD = -1


@dataclass(frozen=True)
class Passages:
    """Passages of a collection, token after token.

    Attributes:
        rows: Token ids of each passage, as the model reads them.
        starts: Where each passage begins among all tokens; one more marks the end of the last.
        pieces: The part of its passage that each token stands for, as an index into ``texts``.
        texts: The different pieces. Those of a passage, put together, are its text.
        words: What has been read of a word with each token, or the sign that it is, as an index
            into ``vocabulary``; -1 for none.
        before: The word before that; -1 for none.
        closes: Whether a word ends with the token.
        vocabulary: The different words and signs, in lower case, digits as 0; words that go on
            end in an ellipsis.
        digest: Hash of all tokens and of how they are cut.
    """

    rows: list[list[int]]
    starts: Int[np.ndarray, " passages_and_one"]
    pieces: Int[np.ndarray, " tokens"]
    texts: list[str]
    words: Int[np.ndarray, " tokens"]
    before: Int[np.ndarray, " tokens"]
    closes: Bool[np.ndarray, " tokens"]
    vocabulary: list[str]
    digest: str

    @property
    def n_tokens(self) -> int:
        """Number of tokens of all passages."""
        return int(self.starts[-1])


class Numbered:
    """Strings, each with the number of its first occurrence."""

    def __init__(self, known: Sequence[str] = ()) -> None:
        self._numbers: dict[str, int] = {text: i for i, text in enumerate(known)}

    def __getitem__(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))

    @property
    def strings(self) -> list[str]:
        """All strings, in the order of their numbers."""
        return list(self._numbers)


def cut_passages(tokenizer: Any, texts: Sequence[str], config: IndexConfig) -> Passages:
    """Cut texts into passages, in a seeded order, and tell their words.

    Args:
        tokenizer: The model's.
        texts: The collection.
        config: How long passages are, and how many tokens are read.

    Raises:
        InputError: texts without a passage.
    """
    cut = [p for text in texts for p in _pieces_of(text, config.passage_characters)]
    random.Random(config.seed).shuffle(cut)
    rows: list[list[int]] = []
    pieces, vocabulary = Numbered(), Numbered()
    columns: list[tuple[list[int], list[int], list[int], list[bool]]] = []
    n_tokens = 0
    for text in cut:
        ids = prompt_ids(tokenizer, text)[: config.context_size]
        if config.max_tokens and n_tokens + len(ids) > config.max_tokens:
            break
        spans = token_spans(tokenizer, text, ids)
        words, before, closes = _words(text, spans, vocabulary)
        columns.append(([pieces[text[a:b]] for a, b in spans], words, before, closes))
        rows.append(ids)
        n_tokens += len(ids)
    if not rows:
        raise InputError("the texts hold no passage to read: give more text, or raise max_tokens")
    shown, words, before, closes = (np.concatenate(column) for column in zip(*columns, strict=True))
    digest = hashlib.sha256(np.concatenate(rows).astype(np.int64).tobytes())
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    digest.update(starts.tobytes())
    return Passages(
        rows=rows,
        starts=starts,
        pieces=shown.astype(np.int32),
        texts=pieces.strings,
        words=words.astype(np.int32),
        before=before.astype(np.int32),
        closes=closes.astype(bool),
        vocabulary=vocabulary.strings,
        digest=digest.hexdigest()[:16],
    )


def token_spans(tokenizer: Any, text: str, ids: Sequence[int]) -> list[tuple[int, int]]:
    """The part of a text that each token stands for: these parts, put together, are the text.

    A blank belongs to the token behind it. Tokens that are in front of the text have an empty
    part, and of tokens that share a character the first has it.
    """
    ends = _token_ends(tokenizer, text)
    # What the tokenizer put in front stands for nothing.
    opening = max(0, len(prompt_ids(tokenizer, text)) - len(ends))
    spans, last = [], 0
    for end in [0] * opening + ends:
        end = max(last, end)
        spans.append((last, end))
        last = end
    return spans[: len(ids)]


def _token_ends(tokenizer: Any, text: str) -> list[int]:
    if getattr(tokenizer, "is_fast", False):
        encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return [end for _, end in encoding["offset_mapping"]]
    plain = tokenizer(text, add_special_tokens=False).input_ids
    return [len(tokenizer.decode(plain[: i + 1])) for i in range(len(plain))]


def _pieces_of(text: str, characters: int) -> list[str]:
    """The passages of a text; a text that is shorter than one is a passage by itself."""
    short = " ".join(text.split())
    return [short] if short and len(short) <= characters else split_passages(text, characters)


def _words(
    text: str, spans: Sequence[tuple[int, int]], vocabulary: Numbered
) -> tuple[list[int], list[int], list[bool]]:
    """What has been read of a word with each token, the word before it, and whether it ends there.

    A model reads from left to right: at the first token of "excuse" it cannot know how it goes on.
    """
    plain = re.sub(r"\d", "0", text.lower())
    # Some characters have more than one in lower case.
    plain = plain if len(plain) == len(text) else text
    matches = list(WORD.finditer(plain))
    at = np.full(len(text) + 1, NO_WORD)
    for index, match in enumerate(matches):
        at[match.start() : match.end()] = index
    words, before, closes = [], [], []
    last = NO_WORD
    for start, end in spans:
        index = int(at[end - 1]) if end > start else NO_WORD
        sign = text[start:end].strip()
        if index != NO_WORD:
            begin, whole = matches[index].start(), matches[index].end()
            goes_on = end < whole
            words.append(vocabulary[plain[begin:end] + ("…" if goes_on else "")])
            closes.append(not goes_on)
            previous, last = index - 1, index
        else:
            words.append(vocabulary[sign] if sign else NO_WORD)
            closes.append(False)
            previous = last
        before.append(vocabulary[matches[previous][0]] if previous >= 0 else NO_WORD)
    return words, before, closes
