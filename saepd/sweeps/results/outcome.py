"""What came out of one point, and its form as JSON, which is checked wherever it is read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from saepd.common.errors import InputError, first_line
from saepd.common.messages import shortened

Status = Literal["finished", "failed"]

_REMEDY = "take it away, and its point runs again"


@dataclass(frozen=True)
class PointOutcome:
    """What came out of one point.

    Attributes:
        key: What the point is called in the store.
        parameters: Every parameter by its name.
        result: Metrics, features and stages; or, of a failed point, the error.
        failed: Whether there is an error instead of metrics.
    """

    key: str
    parameters: dict[str, Any]
    result: dict[str, Any]
    failed: bool = False

    @property
    def status(self) -> Status:
        """As the store has it."""
        return "failed" if self.failed else "finished"


def written_outcome(outcome: PointOutcome) -> dict[str, Any]:
    """An outcome as JSON values, for `read_outcome`."""
    return {
        "key": outcome.key,
        "status": outcome.status,
        "parameters": outcome.parameters,
        "result": outcome.result,
    }


def read_outcome(written: Any, source: str) -> PointOutcome:
    """An outcome from JSON values.

    Args:
        written: What `written_outcome` made.
        source: Where it was read, for messages.

    Raises:
        InputError: it has another form; what is not as it is written is named.
    """
    try:
        _adapter().validate_python(written)
    except ValidationError as error:
        [fault, *_] = error.errors(include_url=False)
        place = ".".join(map(str, fault["loc"])) or "it"
        message = f"{place} is {shortened(fault['input'])}: {fault['msg']}"
        raise InputError(f"{source} holds no outcome of a point: {message}; {_REMEDY}") from error
    failed = written["status"] == "failed"
    if not failed and "metrics" not in written["result"]:
        raise InputError(f"{source} holds no outcome of a point: no metrics; {_REMEDY}")
    return PointOutcome(written["key"], written["parameters"], written["result"], failed)


def value_of_json(text: Any, source: str) -> Any:
    """The value of a JSON text.

    Raises:
        InputError: it is no text, or no JSON.
    """
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{source} is not JSON: {first_line(error)}; {_REMEDY}") from error


class _StageTold(TypedDict):
    kind: str
    key: str
    reused: bool
    n_forwards: int


class _OfPerspective(TypedDict):
    perspective: str


class _Result(TypedDict, total=False):
    metrics: dict[str, float | None]
    intervals: dict[str, list[float] | None]
    rows: list[_OfPerspective]
    features: dict[str, list[int]]
    stages: list[_StageTold]
    content: dict[str, str | None]
    seconds: float
    error: str
    worker: str
    node: str


class _Told(TypedDict):
    __pydantic_config__ = ConfigDict(strict=True, allow_inf_nan=False)  # type: ignore[misc]

    key: str
    status: Status
    parameters: dict[str, str | float | bool | list[str | float] | None]
    result: _Result


@cache
def _adapter() -> TypeAdapter[Any]:
    return TypeAdapter(_Told)
