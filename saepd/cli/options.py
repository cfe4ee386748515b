"""What commands share: loading of model and SAE, places that can be written to, output."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saepd.common.errors import InputError
from saepd.common.files import CONFIG_FILE
from saepd.models.choice import ModelConfig
from saepd.models.wording import Style

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge


def load_model_and_sae(where: ModelConfig) -> tuple[TransformerBridge, SAE[Any]]:
    """The language model and a dictionary that is known to fit it."""
    model, [sae] = load_model_and_saes(where, [None])
    return model, sae


def load_model_and_saes(
    where: ModelConfig, sources: Sequence[int | str | None]
) -> tuple[TransformerBridge, list[SAE[Any]]]:
    """The language model and dictionaries that are known to fit it.

    Args:
        where: Which model, and which SAE where no other is named.
        sources: For each dictionary the block whose shipped one it is, or its folder, or None for
            that of ``where``.
    """
    from saepd.saes.load import load_sae, sae_config

    asked = [(where.sae_source, where.sae_id) if s is None else (s, None) for s in sources]
    for source, sae_id in asked:
        sae_config(source, sae_id)
    model = load_only_model(where)
    return model, [
        load_sae(source, sae_id, model=model, any_model=where.any_model) for source, sae_id in asked
    ]


def as_asked(model: TransformerBridge, prompts: Sequence[str], style: Style | None) -> list[str]:
    """Prompts as the model is given them: as a user's turn in its chat template, or as they are.

    Where no style is given, the template is used if the model has one; that it has none is said.
    """
    from saepd.models.chat import chat

    if style is None and not getattr(model.tokenizer, "chat_template", None):
        print(
            "the model has no chat template: prompts are continued as plain text", file=sys.stderr
        )
        style = "plain"
    if style == "plain":
        return list(prompts)
    return [chat(model.tokenizer, prompt) for prompt in prompts]


def load_only_model(where: ModelConfig) -> TransformerBridge:
    """The language model, where no dictionary is needed."""
    from saepd.models.load import load_model

    with spinning("loading the model (the first time, it is converted into the cache)"):
        return load_model(where.model, **where.model_settings())


def check_folder(out: Path, flag: str = "--out") -> None:
    """Refuse an output folder before anything is computed for it.

    Args:
        out: The folder.
        flag: The option that names it.

    Raises:
        InputError: something that is no folder has this name, or it cannot be written to.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{flag} {out} is a file: name a folder")
    _check_place(flag, out, out)


def check_replaces_no_fit(out: Path) -> None:
    """Refuse to write directions that were made at once over those that ``saepd fit`` made.

    Raises:
        InputError: the folder holds directions that were neither made by hand nor imported.
    """
    from saepd.directions.lineage import read_story

    if not (out / CONFIG_FILE).exists():
        return
    try:
        entries = read_story(out)["directions"]
    except InputError:
        # What is damaged is no loss.
        return
    if any(not {"by_hand", "imported"} & set(entry["lineage"]) for entry in entries):
        raise InputError(
            f"--out {out} holds directions of saepd fit, which would be lost: name another folder"
        )


def check_file(out: Path | None, what: str = "a file", flag: str = "--out") -> None:
    """Refuse an output file, where one is asked for, before anything is computed for it.

    Args:
        out: The file.
        what: What kind of file it is to be.
        flag: The option that names it.

    Raises:
        InputError: it is a folder, or its folder cannot be written to.
    """
    if out is None:
        return
    if out.is_dir():
        raise InputError(f"{flag} {out} is a folder: name {what}")
    _check_place(flag, out, out.parent)


def _check_place(flag: str, out: Path, folder: Path) -> None:
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise InputError(f"{flag} {out}: {folder} is a file, so nothing can be in it: name another")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{flag} {out}: {folder} cannot be written to: name another place")


def quiet_libraries() -> None:
    """Keep what libraries say about themselves off the terminal; saepd's own words stay."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    logging.basicConfig(level=logging.WARNING, format="saepd: %(message)s", stream=sys.stderr)
    for noisy in ("transformers", "sae_lens", "httpx", "huggingface_hub"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")


@contextmanager
def spinning(what: str) -> Iterator[None]:
    """A spinner on the terminal while something of unknown length runs."""
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


def print_json(value: Any) -> None:
    """Results for machines, on standard output."""
    print(json.dumps(value, indent=1, ensure_ascii=False))


def print_table(
    title: str, columns: list[str], rows: list[list[str]], sentences: Collection[str] = ()
) -> None:
    """Results for people, on standard output; columns of sentences are set like the first."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        left = i == 0 or column in sentences
        # No heading is broken within a word while there is room.
        narrowest = max(map(len, column.split()), default=1)
        table.add_column(
            column, justify="left" if left else "right", overflow="fold", min_width=narrowest
        )
    for row in rows:
        table.add_row(*row)
    # Cells are text: brackets in them are no markup.
    Console(markup=False).print(table)
