"""What is wrong with a row or with the arguments of a constructor, field by field, in sentences."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from pydantic import ValidationError

from saepd.common.errors import InputError
from saepd.common.messages import shortened

_MESSAGES = {
    "value_error": "{error}",
    "missing": "missing: every row needs it",
    "extra_forbidden": "no such field: rename it to one of {fields}, or remove it",
    "string_type": "{input} is not text: write it in quotes",
    "string_too_short": "empty: write some text",
    "string_unicode": "half a surrogate pair is no character: write valid Unicode",
    "tuple_type": "{input} is not a list: write it as one",
    "dict_type": "{input} is not a mapping: give one from perspective to value",
    "float_type": "{input} is not a number: write one",
    "float_parsing": "{input} is not a number: write one",
    "int_type": "{input} is not a whole number: write one",
    "int_parsing": "{input} is not a whole number: write one",
    "int_from_float": "{input} is not a whole number: write one",
    "greater_than": "{input} is too small: write 1 or more",
}
# As spreadsheets write numbers: with a decimal comma, in percent, or both.
_FOREIGN_NUMBER = re.compile(r"\s*(\d*[.,]?\d+)\s*(%?)\s*")


class Fault(NamedTuple):
    """What is wrong with one field, and what would be right."""

    field: str
    message: str


class FieldError(InputError):
    """Everything that is wrong with the fields of one row or constructor.

    Attributes:
        faults: One for each field that is wrong.
    """

    def __init__(self, what: str, faults: list[Fault]) -> None:
        super().__init__(f"{what}: " + "; ".join(f"{f.field}: {f.message}" for f in faults))
        self.faults = faults


def faults_in(error: ValidationError, fields: Collection[str]) -> list[Fault]:
    """What pydantic found, told as the project tells it.

    Args:
        error: Raised by a model.
        fields: Names of the model's fields.
    """
    return [
        Fault(
            str(fault["loc"][0]) if fault["loc"] else "row",
            _MESSAGES.get(fault["type"], "{input}: {error}").format(
                input=shortened(fault["input"]),
                error=fault["msg"].removeprefix("Value error, "),
                fields=", ".join(fields),
            )
            + (_share_meant(fault["input"]) if fault["type"] == "float_parsing" else ""),
        )
        for fault in error.errors(include_url=False)
    ]


def _share_meant(text: str) -> str:
    """What to write for a number with a decimal comma, or for one in percent; empty for others."""
    if not (found := _FOREIGN_NUMBER.fullmatch(text)):
        return ""
    number = float(found[1].replace(",", "."))
    return f", {number / 100 if found[2] else number:.15g}"
