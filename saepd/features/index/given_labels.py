"""Labels that others gave latents, kept beside an index: as Neuronpedia exports its explanations.

An exported file has an explanation a line, such as
``{"modelId": "gemma-2-2b", "layer": "20-gemmascope-res-16k", "index": "12", "description": "...",
"explanationModelName": "gpt-4o-mini"}``; model and layer together are the name that the SAE has
there. Older exports are one JSON list of the same objects. Nothing is fetched. What ``saepd label``
writes has the same form, with a hash of the SAE's weights as ``sae``, so that labels are known for
its own whatever it is called, and with ``scores`` that say what they are worth.
"""

from __future__ import annotations

import gzip
import json
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from saepd.common.errors import InputError, first_line
from saepd.common.files import write_json
from saepd.common.messages import shortened
from saepd.features.index.latent_page import GivenLabel
from saepd.saes.load import sae_fingerprint

if TYPE_CHECKING:
    from sae_lens import SAE

LABELS = "labels.json"
# Detection scoring (Paulo et al. 2024), as a row calls it.
DETECTION = "detection"


class Detection(NamedTuple):
    """How well a model that is shown a label tells excerpts in which the latent fires from others.

    Attributes:
        value: Balanced accuracy; .5 is chance.
        low: Lower end of its 95% interval.
        high: Upper end of it.
        null: Balanced accuracy on the same excerpts under the label of another latent.
        null_low: Lower end of its 95% interval.
        null_high: Upper end of it.
        p: Chance of gaining so many excerpts on that label or more, were the label no better.
        n: Number of excerpts; the latent fires in half of them.
        null_of: The other latent.
    """

    value: float
    low: float
    high: float
    null: float
    null_low: float
    null_high: float
    p: float
    n: int
    null_of: int

    @property
    def better(self) -> bool:
        """Whether the label is better than that of another latent, as far as so few can tell."""
        return self.p < 0.05

    def __str__(self) -> str:
        verdict = "" if self.better else ", which is no better as far as this can tell"
        return (
            f"balanced accuracy {self.value:.2f} [{self.low:.2f}, {self.high:.2f}] on {self.n} "
            f"held-out excerpts; {self.null:.2f} under another latent's label{verdict}"
        )


class LabelReader:
    """Reads rows that must be labels of one SAE's latents."""

    def __init__(self, sae: SAE[Any]) -> None:
        self.page: str | None = getattr(sae.cfg.metadata, "neuronpedia_id", None)
        self._sae = sae

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the SAE's weights."""
        return sae_fingerprint(self._sae)

    def label(self, where: str, row: Any) -> tuple[int, GivenLabel]:
        """A latent and its label, which is empty where somebody left it so.

        Args:
            where: File and line, as they are said.
            row: What stands there.

        Raises:
            InputError: no label, or one of another SAE, or of a latent that there is not.
        """
        fields = row if isinstance(row, dict) else {}
        text, index = fields.get("description"), str(fields.get("index"))
        own = "sae" in fields
        self._check_of(where, fields)
        d_sae = int(self._sae.cfg.d_sae)
        if not isinstance(text, str):
            raise InputError(f"{where} has no text as description: leave the line out")
        known = index.isascii() and index.isdigit() and len(index) < 19
        if not known or int(index) >= d_sae:
            raise InputError(
                f"{where} is of latent {shortened(fields.get('index'))}: this SAE has latents 0 to "
                f"{d_sae - 1}"
            )
        by = fields.get("explanationModelName")
        said = [] if own else [f"Neuronpedia {self.page}"]
        said += [clean_text(by)] if isinstance(by, str) and by else []
        if own:
            said.append(str(detection(where, fields) or "not scored"))
        return int(index), GivenLabel(clean_text(text), ", ".join(said))

    def _check_of(self, where: str, fields: dict[str, Any]) -> None:
        if "sae" in fields:
            if fields["sae"] != self.fingerprint:
                raise InputError(
                    f"{where} is a label of an SAE with other weights "
                    f"({shortened(fields['sae'])}, this one has {self.fingerprint!r}): give this "
                    "one's labels"
                )
            return
        if not self.page:
            raise InputError(
                f"{where} does not say which weights it is of, and this SAE's cfg.json has no "
                "neuronpedia_id in its metadata, so that nobody can tell whether it is its own: "
                "write it there, such as gemma-2-2b/20-gemmascope-res-16k"
            )
        of = f"{fields.get('modelId')}/{fields.get('layer')}"
        if of != self.page:
            said = of if "modelId" in fields and "layer" in fields else "no SAE"
            raise InputError(
                f"{where} is a label of {shortened(said)}, and this SAE is {self.page!r}: give "
                "that one's labels"
            )


def detection(where: str, row: dict[str, Any]) -> Detection | None:
    """What a row that ``saepd label`` wrote says of the label's worth; None if it was not scored.

    Raises:
        InputError: a score that cannot be read.
    """
    scores = row.get("scores") or []
    try:
        for score in scores:
            if score["explanationScoreTypeName"] == DETECTION:
                read = Detection(*(score[name] for name in Detection._fields))
                if all(0 <= share <= 1 for share in read[:7]) and read.n > 0:
                    return read
                raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where} has a score that cannot be read: leave it out") from error
    return None


def read_labels(files: Sequence[str | Path], sae: SAE[Any]) -> dict[int, list[GivenLabel]]:
    """The labels of an SAE's latents in exported files.

    Args:
        files: JSON lines, plain or gzipped, or JSON lists.
        sae: The SAE. Its metadata must name its Neuronpedia id, unless labels say which weights
            they are of.

    Raises:
        InputError: an SAE of which nobody knows what it is called there; a file that cannot be
            read, or a label without a text, of another SAE, or of a latent that there is not.
    """
    reader = LabelReader(sae)
    given: dict[int, list[GivenLabel]] = {}
    for file in map(Path, files):
        rows = list(label_rows(file))
        if not rows:
            raise InputError(f"{file} holds no label")
        for where, row in rows:
            latent, label = reader.label(where, row)
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


def label_rows(file: Path) -> Iterator[tuple[str, Any]]:
    """Every row of a file, with the words for where it stands.

    Raises:
        InputError: a file that cannot be read, or is no JSON.
    """
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


def clean_text(text: str) -> str:
    """Somebody's words in one line, without what would steer a terminal or stand in no file."""
    return "".join(c for c in " ".join(text.split()) if unicodedata.category(c) not in ("Cc", "Cs"))
