"""Where a model's files are: on this machine if they are, else on the hub."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from saepd.common.errors import InputError, first_line
from saepd.models.conversion import converted
from saepd.models.identity import folder_name
from saepd.models.packaged import DEFAULT_MODEL, DEFAULT_MODEL_SHA256, default_gguf

T = TypeVar("T")

_SECONDS_TO_ANSWER = 3.0
_ADAPTER = "adapter_config.json"
_MERGE_IT = (
    f"an adapter ({_ADAPTER}), which is not applied here: merge it into its model "
    "(merge_and_unload in peft), save that, and name its folder"
)


def find_model(name: str) -> tuple[str, str]:
    """What transformers can load, and a stable name, for whatever the user wrote.

    Raises:
        InputError: no such file or folder, or an unusable one.
    """
    if name == DEFAULT_MODEL:
        return str(converted(default_gguf(), DEFAULT_MODEL_SHA256)), DEFAULT_MODEL
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise InputError(f"no such GGUF file: {path}")
        return str(converted(path)), path.stem
    if path.is_dir():
        if not (path / "config.json").is_file():
            if (path / _ADAPTER).is_file():
                raise InputError(f"{path} holds {_MERGE_IT}")
            raise InputError(f"{path} holds no config.json: a model folder needs one")
        if (path / _ADAPTER).is_file() and any(path.glob("adapter_model.*")):
            raise InputError(f"{path} holds {_MERGE_IT}")
        return str(path), folder_name(path)
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise InputError(f"no such model folder: {path}")
    return name, name


def files_of(source: str, revision: str | None) -> Path | None:
    """The folder on this machine that holds a model's files; None if there is none."""
    from huggingface_hub import try_to_load_from_cache

    if Path(source).is_dir():
        return Path(source)
    config = try_to_load_from_cache(source, "config.json", revision=revision)
    return Path(config).parent if isinstance(config, str) else None


def read_model(source: str, name: str, read: Callable[[bool], T], what: str = "model") -> T:
    """Read a model's files from this machine if they are there, else from the hub.

    A hub id is looked for in the local cache first, so that a model that was used before needs no
    network. Whether the hub can be reached is asked once, and not by every download in turn.

    Args:
        source: A folder or a hub id.
        name: The model as the user wrote it, for messages.
        read: Reads the files; its argument says whether to keep to this machine.
        what: What it is, for messages.

    Raises:
        InputError: unreadable files; or they are not here and the hub cannot be reached.
    """
    try:
        return read(True)
    except InputError:
        raise
    except Exception as error:
        # transformers, safetensors and huggingface_hub raise unrelated classes for a bad source.
        if Path(source).is_dir():
            raise InputError(f"cannot load the {what} {name!r}: {first_line(error)}") from error
        here = error
    if why := why_unreachable():
        raise InputError(
            f"the {what} {name!r} is no folder here and not in the local cache, and the hub cannot "
            f"be reached ({why}): name a folder, or load it once with a network"
        ) from here
    try:
        return read(False)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"cannot load the {what} {name!r}: {first_line(error)}") from error


def why_unreachable() -> str:
    """Why the hub does not answer; empty if it does."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"

    answers: list[str] = []

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=_SECONDS_TO_ANSWER)
            answers.append("")
        except Exception as error:
            answers.append(first_line(error))

    # In a thread, because looking up a host's address knows no time limit.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_SECONDS_TO_ANSWER)
    return answers[0] if answers else f"no answer within {_SECONDS_TO_ANSWER:.0f} s"
