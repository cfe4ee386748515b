"""What the live page asks for, checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saepd.branches.writing.config import SamplingConfig
from saepd.common.checks import check_choice, check_number
from saepd.common.errors import InputError
from saepd.merge.config import MergeConfig

_STYLES = ("chat", "plain")
MOST_TOKENS = 512
_MOST_STRENGTH = 64.0


@dataclass(frozen=True)
class LiveRequest:
    """A prompt with all that the page's controls say.

    Attributes:
        prompt: What is asked or continued.
        options: What the answers are; none for free text alone.
        strengths: Factor of each direction's own coefficient.
        merge: How branches become one answer.
        sampling: How text is written.
        style: Whether a prompt is a user's turn (``chat``) or plain text.
    """

    prompt: str
    options: tuple[str, ...]
    strengths: tuple[float, ...]
    merge: MergeConfig
    sampling: SamplingConfig
    style: str


def read_request(asked: Mapping[str, Any], names: Sequence[str]) -> LiveRequest:
    """A request out of JSON values.

    Args:
        asked: What the page sent.
        names: Names of the directions, in their order.

    Raises:
        InputError: what is missing or cannot be.
    """
    prompt, options = asked.get("prompt"), asked.get("options", [])
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError("the prompt is empty: write some text")
    if not isinstance(options, list) or not all(isinstance(o, str) and o.strip() for o in options):
        raise InputError("options must be texts: write one a line")
    if len(options) == 1:
        raise InputError("one option is no choice: write two or more, or none for free text")
    if len(set(options)) < len(options):
        raise InputError("an option is there twice: write each once")
    style = asked.get("style", "plain")
    check_choice("style", style, _STYLES)
    alpha = asked.get("alpha", 1.0)
    n_tokens, temperature = asked.get("max_new_tokens", 48), asked.get("temperature", 0.0)
    seed = asked.get("seed", 0)
    check_number("the number of tokens", n_tokens, at_least=1, at_most=MOST_TOKENS, whole=True)
    check_number("the temperature", temperature, at_least=0)
    check_number("the seed", seed, at_least=0, whole=True)
    return LiveRequest(
        prompt,
        tuple(options),
        read_strengths(asked, names),
        MergeConfig(asked.get("operator", "pluralistic"), alpha=alpha),
        SamplingConfig(max_new_tokens=n_tokens, temperature=float(temperature), seed=seed),
        style,
    )


def read_strengths(asked: Mapping[str, Any], names: Sequence[str]) -> tuple[float, ...]:
    """The factor of each direction's own coefficient, in the order of the names.

    Raises:
        InputError: a direction without a strength, or one that cannot be.
    """
    strengths = asked.get("strengths", {})
    if not isinstance(strengths, dict) or set(strengths) != set(names):
        raise InputError(f"strengths must name each of {', '.join(names)}")
    for name in names:
        check_number(
            f"the strength of {name!r}",
            strengths[name],
            at_least=-_MOST_STRENGTH,
            at_most=_MOST_STRENGTH,
        )
    return tuple(float(strengths[name]) for name in names)
