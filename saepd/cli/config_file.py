"""Options out of a file: what is given on every command line need be written once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from saepd.common.errors import InputError
from saepd.common.messages import nearest, shortened
from saepd.sweeps.space.yaml_values import read_yaml


def read_config_file(path: Path, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a YAML or JSON file sets, by name; dashes in names count as underscores.

    JSON's types decide: 8 may stand for 8.0, but "8" for no number.

    Args:
        path: The file; JSON if its name ends in .json.
        kinds: Types of the options that the command has, by name.

    Raises:
        InputError: the file cannot be read, is no mapping, names what is no option, or gives a
            value of another type.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read --config {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"--config {path} is not UTF-8: save it in that encoding") from error
    # JSON may be indented with tabs, which no text of JSON can hold; YAML wants spaces.
    content = read_yaml(text.expandtabs(1) if path.suffix == ".json" else text, f"--config {path}")
    if not isinstance(content, dict):
        raise InputError(
            f"--config {path} holds {shortened(content)}: write a mapping of options, such as "
            "block: 20"
        )
    settings: dict[str, Any] = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in kinds:
            raise InputError(
                f"--config {path}: there is no option {shortened(key)}: {nearest(name, kinds, 99)}"
            )
        if name in settings:
            raise InputError(f"--config {path} gives {name} twice: give it once")
        settings[name] = _checked(path, name, value, kinds[name])
    return settings


def _checked(path: Path, name: str, value: Any, kind: Any) -> Any:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    try:
        return adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        faults = "; ".join(dict.fromkeys(e["msg"].lower() for e in error.errors()))
        raise InputError(f"--config {path}: {name} is {shortened(value)}: {faults}") from error
