"""Text in, token batches out: prompts, answer continuations, and their templates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor

from saepd.common.errors import InputError
from saepd.models.wording import ReadoutConfig, rendered

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


# What follows a text's last question mark or line break.
_ENDING = re.compile(r"[^?\n]*\Z")


@dataclass(frozen=True)
class PromptBatch:
    """Left-padded prompts."""

    tokens: Int[Tensor, "batch seq"]
    attention: Int[Tensor, "batch seq"]

    @property
    def position_ids(self) -> Int[Tensor, "batch seq"]:
        """Rotary or absolute position of each token, counted from its row's first real one."""
        return (self.attention.cumsum(-1) - 1).clamp(min=0)


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """Token ids of one prompt, with the tokenizer's own opening unless the text brings it.

    Raises:
        InputError: an empty prompt.
    """
    if not prompt.strip():
        raise InputError("a prompt is empty: give it some text")
    opened = bool(tokenizer.bos_token) and prompt.startswith(tokenizer.bos_token)
    return tokenizer(prompt, add_special_tokens=not opened).input_ids


def continuation_ids(tokenizer: Any, prompt: str, continuation: str) -> list[int]:
    """Token ids that a continuation adds to a prompt.

    A space joins them unless the prompt already ends in white space. The two are tokenised
    together, as the model would have seen them; where that changes the prompt's own tokens, the
    continuation is tokenised alone.

    Raises:
        InputError: the continuation adds no token.
    """
    joint = "" if prompt[-1:].isspace() else " "
    before = prompt_ids(tokenizer, prompt)
    both = prompt_ids(tokenizer, prompt + joint + continuation)
    if both[: len(before)] == before:
        added = both[len(before) :]
    else:
        added = tokenizer(joint + continuation, add_special_tokens=False).input_ids
    if not added:
        raise InputError(f"the option {continuation!r} adds no token to the prompt")
    return added


def pad_left(model: TransformerBridge, rows: Sequence[list[int]]) -> PromptBatch:
    """Token rows as one left-padded batch on the model's device."""
    length = max(len(row) for row in rows)
    pad = model.tokenizer.pad_token_id
    tokens = torch.tensor([[pad] * (length - len(row)) + row for row in rows])
    attention = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    device = next(model.original_model.parameters()).device
    return PromptBatch(tokens.to(device), attention.to(device))


def check_lengths(
    model: TransformerBridge, rows: Sequence[list[int]], room: int | Sequence[int] = 0
) -> None:
    """Refuse prompts that leave no room for further tokens in the model's context.

    Args:
        model: The language model.
        rows: Token ids of each prompt.
        room: How many further tokens: for all prompts, or for each of them.

    Raises:
        InputError: a prompt is too long.
    """
    limit = int(model.cfg.n_ctx)
    rooms = [room] * len(rows) if isinstance(room, int) else room
    for index, (row, more) in enumerate(zip(rows, rooms, strict=True)):
        if len(row) + more > limit:
            wanted = f" and needs {more} more" if more else ""
            raise InputError(
                f"prompt {index} has {len(row)} tokens{wanted}, but the model's context holds "
                f"{limit}: shorten it"
            )


def chat(tokenizer: Any, text: str) -> str:
    """A user's turn in the tokenizer's chat template, ready for the model's answer.

    Raises:
        InputError: the tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise InputError("this model has no chat template: use the plain style")
    messages = [{"role": "user", "content": text}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


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
    text = _asked(question, options, config)
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


def _asked(question: str, options: Sequence[str], config: ReadoutConfig) -> str:
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
