"""Write directions for another tool, and say what it will not do as saepd does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saepd.common.checks import check_choice
from saepd.common.errors import InputError
from saepd.common.files import write_atomically, write_json
from saepd.directions.accepting import Directions, as_directions
from saepd.directions.applying import check_fits
from saepd.interchange.from_directions import as_record, by_perspective, model_facts
from saepd.interchange.losses import Loss, Says, as_sentence, can_hold, losses
from saepd.interchange.record import SteeringRecord, file_stems
from saepd.interchange.registry import TARGETS
from saepd.interchange.strength import Refit, at_every_token

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

STORY_FILE = "export.json"
# What changes how strongly neutral text is moved.
_CARRIED_OVER = ("positions", "gate")


@dataclass(frozen=True)
class Written:
    """One perspective in another tool's format.

    Attributes:
        perspective: Name of the perspective.
        files: The files that were written for it.
        norm: Euclidean norm of what they add to the residual stream at strength 1.
        losses: What of the direction is not in them.
        refit: How the strength was carried over to writing at every token; None where the format
            writes where the direction does.
        use: How the tool is told to use them.
    """

    perspective: str
    files: tuple[Path, ...]
    norm: float
    losses: tuple[Loss, ...]
    refit: Refit | None
    use: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "files": [file.name for file in self.files]}


def export_directions(
    model: TransformerBridge,
    directions: Directions,
    to: str,
    out: str | Path,
    *,
    allow_loss: bool = False,
) -> list[Written]:
    """Write directions in the format of another tool.

    Most tools add a vector at every token. A direction that acts elsewhere is given the strength
    at which that moves the next token after neutral prompts as far as the direction does, in mean
    KL from the base.

    Args:
        model: The model that they are for.
        directions: One direction or several, or what `saepd.fit_directions` returns; those of one
            perspective act together.
        to: The format: a name of `saepd.interchange.config.WRITTEN`.
        out: Folder that gets the files, and ``export.json``, which tells how they came about.
        allow_loss: Write what the format can say, and leave out or change the rest.

    Returns:
        What was written for each perspective.

    Raises:
        InputError: no directions or foreign ones, an unknown format, or what it cannot say, unless
            that is allowed; and where nothing at all would be left to write.
    """
    check_choice("format", to, TARGETS)
    target, listed, out = TARGETS[to], as_directions(directions), Path(out)
    if not listed:
        raise InputError("there are no directions to export: give at least one")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: name a folder")
    check_fits(model, listed)
    facts = model_facts(model)
    groups = list(by_perspective(listed).values())
    records = [as_record(group, facts) for group in groups]
    losses_by_record = [losses(record, target.says) for record in records]
    for record in records:
        _check_something(record, to, target.says)
    if any(losses_by_record) and not allow_loss:
        what = as_sentence([loss for lost in losses_by_record for loss in lost])
        raise InputError(
            f"{to} cannot say all of these directions: {what}; "
            "allow the loss to export the rest (--allow-loss)"
        )
    carried_over = [
        i
        for i, lost in enumerate(losses_by_record)
        if any(loss.what in _CARRIED_OVER for loss in lost)
    ]
    refits: dict[int, Refit] = {}
    if carried_over:
        adding = [
            [part for d in groups[i] for part in d.parts if part.constant is not None]
            for i in carried_over
        ]
        for i, (group, refit) in zip(carried_over, at_every_token(model, adding), strict=True):
            records[i], refits[i] = as_record(group, facts), refit
    written = []
    for i, (record, stem) in enumerate(
        zip(records, file_stems([record.perspective for record in records]), strict=True)
    ):
        files = target.write(record, stem)
        for name, payload in files.items():
            write_atomically(out / name, payload)
        written.append(
            Written(
                record.perspective,
                tuple(out / name for name in files),
                _as_held(record, target.says).norm,
                tuple(losses_by_record[i]),
                refits.get(i),
                target.use.format(file=out / next(iter(files))),
            )
        )
    write_json(out / STORY_FILE, _story(to, records, written))
    return written


def _as_held(record: SteeringRecord, says: Says) -> SteeringRecord:
    """The record with the sites that a format has a place for."""
    return replace(record, sites=tuple(site for site in record.sites if can_hold(site, says)))


def _check_something(record: SteeringRecord, to: str, says: Says) -> None:
    """Refuse what would leave no file of any use."""
    if says.latents and any(site.source and site.source.neuronpedia_id for site in record.sites):
        return
    if not any(can_hold(site, says) for site in record.sites):
        why = as_sentence([loss for loss in losses(record, says) if loss.what not in _CARRIED_OVER])
        raise InputError(f"{to} can say nothing of {record.perspective!r}: {why}")


def _story(
    to: str, records: Sequence[SteeringRecord], written: Sequence[Written]
) -> dict[str, Any]:
    return {
        "format": to,
        "saepd": version("saepd"),
        "model": records[0].model.name,
        "units": "residual units, added at strength 1",
        "directions": [
            {**one.to_dict(), "lineage": dict(record.lineage)}
            for one, record in zip(written, records, strict=True)
        ],
    }
