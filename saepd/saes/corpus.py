"""Documents to token contexts for training dictionaries, in the formats that prompts have.

A passage becomes a context in one of three formats: plain prose, a chat exchange (the passage cut
in two: what the user said, what the assistant answered), or a questionnaire (a sentence as the
question, further sentences as lettered options). Dictionaries trained on prose alone reconstruct
prompts badly, because prompts are mostly the last two.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saepd.common.errors import InputError
from saepd.saes.config import CorpusConfig

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


@dataclass(frozen=True)
class Context:
    """Tokens of one passage, and which of its positions count."""

    tokens: list[int]
    keep: list[bool]
    kind: str


def read_documents(paths: list[Path]) -> list[str]:
    """Texts of ``.txt`` files (one document each) and ``.jsonl``/``.jsonl.gz`` rows (``text``).

    Raises:
        InputError: a file that is neither, or a row without a ``text`` string.
    """
    documents: list[str] = []
    for path in paths:
        if not path.name.endswith((".txt", ".jsonl", ".jsonl.gz")):
            raise InputError(f"{path}: a corpus is .txt, .jsonl or .jsonl.gz files")
        opener = gzip.open if path.suffix == ".gz" else open
        try:
            with opener(path, "rt", encoding="utf-8") as file:
                if path.suffix == ".txt":
                    documents.append(file.read())
                else:
                    lines = enumerate(file, 1)
                    documents += [_document(line, f"{path}, line {n}") for n, line in lines]
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"cannot read {path}: {error}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8 ({error}): save it in that encoding") from error
    if not documents:
        raise InputError("the corpus holds no documents: give files that hold text")
    return documents


def _document(line: str, where: str) -> str:
    try:
        text = json.loads(line)["text"]
    except (ValueError, KeyError, TypeError, RecursionError):
        text = None
    if not isinstance(text, str):
        raise InputError(f'{where}: each line must be JSON with a "text" field that holds text')
    return text


def contexts(
    documents: list[str], tokenizer: Any, config: CorpusConfig, *, held_out: bool
) -> Iterator[Context]:
    """Contexts of the training (or the held-out) documents, in a seeded random order.

    The training contexts never end: each further pass over the documents shuffles the passages
    anew and draws their formats anew. The held-out ones come once.

    Positions that do not count: the first (its norm is some hundred times the others'), special
    tokens, and the chat template's constant opening (the same vectors in every context).
    """
    rng = random.Random(config.seed)
    held = [rng.random() < config.held_out_share for _ in documents]
    passages = [
        passage
        for document, is_held in zip(documents, held, strict=True)
        if is_held == held_out
        for passage in split_passages(document, config.passage_characters)
    ]
    if not passages:
        raise InputError(
            "the corpus has no " + ("held-out" if held_out else "training") + " passages: add "
            "documents, or change held_out_share"
        )
    special = set(tokenizer.all_special_ids)
    opening = template_opening(tokenizer) if tokenizer.chat_template else 0
    order: list[str] = []
    while True:
        if not order:
            order = rng.sample(passages, len(passages))
        passage = order.pop()
        draw = rng.random()
        kind = "plain"
        if draw < config.chat_share and tokenizer.chat_template:
            kind = "chat"
        elif draw < config.chat_share + config.questionnaire_share:
            kind = "questionnaire"
        text, skipped = passage, 1
        if kind == "chat":
            text, skipped = _as_chat(passage, tokenizer, rng), max(1, opening)
        elif kind == "questionnaire":
            text = _as_questionnaire(passage, rng)
        tokens = tokenizer(text, add_special_tokens=kind != "chat").input_ids
        tokens = tokens[: config.context_size]
        keep = [i >= skipped and token not in special for i, token in enumerate(tokens)]
        if any(keep):
            yield Context(tokens, keep, kind)
        if held_out and not order:
            return


def split_passages(document: str, characters: int) -> list[str]:
    """Cut a document at sentence and line ends into passages of about ``characters``."""
    passages: list[str] = []
    current = ""
    for sentence in _SENTENCE_END.split(document):
        sentence = sentence.strip()
        if not sentence:
            continue
        if current and len(current) + len(sentence) > characters:
            passages.append(current)
            current = ""
        current = f"{current} {sentence}" if current else sentence
    if len(current) > characters // 4:
        passages.append(current)
    return passages


def template_opening(tokenizer: Any) -> int:
    """Number of tokens the chat template writes before any message of the user's."""
    rows = [
        tokenizer(
            tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False),
            add_special_tokens=False,
        ).input_ids
        for text in ("Apple", "zebra")
    ]
    same = [a == b for a, b in zip(*rows, strict=False)]
    return same.index(False) if False in same else len(same)


def _as_chat(passage: str, tokenizer: Any, rng: random.Random) -> str:
    sentences = _SENTENCE_END.split(passage)
    cut = rng.randint(1, max(1, len(sentences) - 1))
    messages = [{"role": "user", "content": " ".join(sentences[:cut])}]
    if sentences[cut:]:
        messages.append({"role": "assistant", "content": " ".join(sentences[cut:])})
    return tokenizer.apply_chat_template(messages, tokenize=False)


def _as_questionnaire(passage: str, rng: random.Random) -> str:
    sentences = _SENTENCE_END.split(passage)
    lead, rest = sentences[0], sentences[1:]
    options = [" ".join(s.split()[: rng.randint(1, 6)]) for s in rest[: rng.randint(2, 5)]]
    if not options:
        return passage
    listed = "\n".join(f"{chr(65 + i)}. {option}" for i, option in enumerate(options))
    answer = rng.randrange(len(options))
    given = f"{chr(65 + answer)}. {options[answer]}" if rng.random() < 0.5 else options[answer]
    tail = " ".join(rest[len(options) :])
    return f"Question: {lead}\nOptions:\n{listed}\nAnswer: {given}\n{tail}"
