"""How an item is worded: the prompt whose continuation answers it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from saepd.common.errors import InputError
from saepd.models.chat import chat
from saepd.models.wording import ReadoutConfig, rendered

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


# What follows a text's last question mark or line break.
_ENDING = re.compile(r"[^?\n]*\Z")


def letters(n_options: int) -> list[str]:
    """A, B, C, ... for up to 26 options."""
    if n_options > 26:
        raise InputError(f"{n_options} options have no letters: the letter readout holds 26")
    return [chr(ord("A") + i) for i in range(n_options)]


def item_prompt(
    model: TransformerBridge,
    question: str,
    options: Sequence[str],
    config: ReadoutConfig,
    *,
    named: str = "",
) -> str:
    """The prompt whose continuation answers an item; one that names an answer if there is one."""
    text = _prompt_text(question, options, config)
    if named:
        text = naming_answer(text, named)
    return chat(model.tokenizer, text) if config.style == "chat" else text


def naming_answer(text: str, answer: str) -> str:
    """The text of a question with one answer to it named, as iterative prompting asks.

    The answer is put after the question itself: after its question mark, or in a line of its own
    before the last line, so that what the text ends with ("Answer:") still asks for one.

    Raises:
        InputError: an empty text or answer.
    """
    if not text.strip() or not answer.strip():
        raise InputError("a question and the answer to name must both have some text")
    ending = _ENDING.search(text)
    assert ending is not None
    before, after = text[: ending.start()], ending[0].strip()
    if before and not before[-1].isspace():
        before += " "
    return f"{before}One answer to this question is: {answer.strip()}\n{after}".rstrip()


def _prompt_text(question: str, options: Sequence[str], config: ReadoutConfig) -> str:
    """The text of a plain prompt, or of a user's turn."""
    if config.readout == "letter":
        listed = "\n".join(
            f"{letter}. {option}"
            for letter, option in zip(letters(len(options)), options, strict=True)
        )
        text = f"{question}\n{listed}"
        if config.style == "chat":
            return f"{text}\nAnswer with the letter of one option."
        return f"Question: {text}\nAnswer:"
    if config.style == "chat":
        return f"A survey asked: {question} What did people answer?"
    # Not `format`: a question may hold braces, and a template of the user's own others.
    return rendered(config.template, prompt=question)
