"""Labels that others gave latents, kept beside an index: as Neuronpedia exports its explanations.

An exported file has an explanation a line, such as
``{"modelId": "gemma-2-2b", "layer": "20-gemmascope-res-16k", "index": "12", "description": "...",
"explanationModelName": "gpt-4o-mini"}``; model and layer together are the name that the SAE has
there. Older exports are one JSON list of the same objects. Nothing is fetched.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saepd.common.errors import InputError, first_line
from saepd.common.files import write_json
from saepd.common.messages import shortened
from saepd.features.index.latent_page import GivenLabel

if TYPE_CHECKING:
    from sae_lens import SAE

LABELS = "labels.json"


def read_labels(files: Sequence[str | Path], sae: SAE[Any]) -> dict[int, list[GivenLabel]]:
    """The labels of an SAE's latents in exported files.

    Args:
        files: JSON lines, plain or gzipped, or JSON lists.
        sae: The SAE, whose metadata must name its Neuronpedia id.

    Raises:
        InputError: an SAE of which nobody knows what it is called there; a file that cannot be
            read, or a label without a text, of another SAE, or of a latent that there is not.
    """
    page = getattr(sae.cfg.metadata, "neuronpedia_id", None)
    if not page:
        raise InputError(
            "labels are given, and this SAE's cfg.json has no neuronpedia_id in its metadata, so "
            "that nobody can tell whether they are its own: write it there, such as "
            "gemma-2-2b/20-gemmascope-res-16k"
        )
    given: dict[int, list[GivenLabel]] = {}
    for file in map(Path, files):
        rows = list(_rows(file))
        if not rows:
            raise InputError(f"{file} holds no label")
        for where, row in rows:
            latent, label = _label(where, row, page, int(sae.cfg.d_sae))
            of_latent = given.setdefault(latent, [])
            # Exports have explanations that somebody left empty.
            if label.text and label not in of_latent:
                of_latent.append(label)
    return {latent: of_latent for latent, of_latent in given.items() if of_latent}


def write_labels(folder: Path, labels: dict[int, list[GivenLabel]]) -> None:
    """Keep labels beside an index, in the place of any that are there."""
    write_json(folder / LABELS, {str(latent): labels[latent] for latent in sorted(labels)})


def kept_labels(folder: Path) -> dict[int, tuple[GivenLabel, ...]]:
    """The labels beside an index; none where no file of them was given.

    Raises:
        InputError: a damaged file.
    """
    path = folder / LABELS
    if not path.is_file():
        return {}
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return {
            int(latent): tuple(GivenLabel(str(text), str(source)) for text, source in labels)
            for latent, labels in kept.items()
        }
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} is not readable as labels ({first_line(error)}): remove it, or build the "
            "index with --labels again"
        ) from error


def _rows(file: Path) -> Iterator[tuple[str, Any]]:
    """Every label, with the words for where it stands."""
    try:
        raw = file.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not readable as labels: {first_line(error)}") from error
    if text.lstrip().startswith("["):
        for number, row in enumerate(_parsed(text, str(file)), 1):
            yield f"{file}, label {number}", row
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            where = f"{file}, line {number}"
            yield where, _parsed(line, where)


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{where} is no JSON ({first_line(error)}): give explanations as Neuronpedia exports "
            "them"
        ) from error


def _label(where: str, row: Any, page: str, d_sae: int) -> tuple[int, GivenLabel]:
    fields = row if isinstance(row, dict) else {}
    of = f"{fields.get('modelId')}/{fields.get('layer')}"
    if of != page:
        said = of if "modelId" in fields and "layer" in fields else "no SAE"
        raise InputError(
            f"{where} is a label of {shortened(said)}, and this SAE is {page!r}: give that one's "
            "labels"
        )
    text, index = fields.get("description"), str(fields.get("index"))
    if not isinstance(text, str):
        raise InputError(f"{where} has no text as description: leave the line out")
    if not (index.isascii() and index.isdigit() and int(index) < d_sae):
        raise InputError(
            f"{where} is of latent {shortened(fields.get('index'))}: this SAE has latents 0 to "
            f"{d_sae - 1}"
        )
    by = fields.get("explanationModelName")
    source = f"Neuronpedia {page}, {by}" if isinstance(by, str) and by else f"Neuronpedia {page}"
    return int(index), GivenLabel(text.strip(), source)
