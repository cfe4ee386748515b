"""A user's turn in a model's own chat template, ready for the answer itself."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from saepd.common.errors import InputError, first_line

# Templates that can think ask for one of these; others never look at them.
_WITHOUT_THINKING = {"enable_thinking": False, "thinking": False}

_SOME_TEXT = "Some text."

# <think>, <|START_THINKING|>, [THINK], <seed:think>, <scratchpad>, <|channel|>analysis, and what
# closes them.
_THINKING = re.compile(
    r"<[^<>]*(?:think|thought|reason|reflect|scratchpad|analysis|monologue|\bcot\b|思考)[^<>]*>"
    r"|\[/?THINK(?:ING)?\]|<\|?channel\|?>(?:analysis|thought)|<channel\|>",
    re.IGNORECASE,
)
# How prompts end in the format of gpt-oss, where the model writes the channel's name first.
_BEFORE_A_CHANNEL = "<|start|>assistant"
_CLOSING = re.compile(r"/|END_|<channel\|>", re.IGNORECASE)


def chat(tokenizer: Any, text: str) -> str:
    """A user's turn in the tokenizer's chat template, ready for the model's answer.

    Where a template can be told not to think, it is: what follows is the answer.

    Raises:
        InputError: the tokenizer has no chat template, or one that refuses a user's turn, leaves
            the text out, or makes the model think before it answers.
    """
    template = _template(tokenizer)
    rendered = ""
    # Templates of models that see pictures may want the content in parts.
    for content in (text, [{"type": "text", "text": text}]):
        try:
            rendered = tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                chat_template=template,
                tokenize=False,
                add_generation_prompt=True,
                **_WITHOUT_THINKING,
            )
        except Exception as error:
            # A template is a program of the model's: it raises whatever it likes.
            raise InputError(
                f"the model's chat template cannot put a user's turn ({first_line(error)}): use "
                "style='plain' (--style plain)"
            ) from error
        if text.strip() in rendered:
            break
    else:
        raise InputError(
            "the model's chat template leaves the text out: use style='plain' (--style plain)"
        )
    behind = rendered[rendered.rindex(text.strip()) + len(text.strip()) :]
    marks = _THINKING.findall(behind)
    if marks and not _CLOSING.search(marks[-1]):
        raise InputError(
            f"the model's chat template opens a block for thinking ({marks[-1]}), so what follows "
            "would not be the answer: use style='plain' (--style plain)"
        )
    if rendered.rstrip().endswith(_BEFORE_A_CHANNEL) and "<|channel|>" in template:
        raise InputError(
            "the model's chat template leaves it to the model to open a channel for thinking or "
            "one for its answer, so what follows would not be the answer: use style='plain' "
            "(--style plain)"
        )
    return rendered


def chat_opening(tokenizer: Any) -> str:
    """The text that every user's turn begins with; empty if there is no usable template."""
    return _opening(tokenizer, repr(getattr(tokenizer, "chat_template", None)))


@lru_cache(maxsize=16)
def _opening(tokenizer: Any, _template: str) -> str:
    try:
        return chat(tokenizer, _SOME_TEXT).partition(_SOME_TEXT)[0]
    except InputError:
        return ""


def _template(tokenizer: Any) -> str:
    """The template for plain turns, where there may be several by name."""
    known = tokenizer.chat_template
    if isinstance(known, list):
        known = {entry["name"]: entry["template"] for entry in known}
    if not known:
        raise InputError("this model has no chat template: use style='plain' (--style plain)")
    if isinstance(known, dict):
        if "default" not in known:
            raise InputError(
                f"this model has chat templates only for {', '.join(sorted(known))}, and none "
                "called default: use style='plain' (--style plain)"
            )
        return known["default"]
    return known
