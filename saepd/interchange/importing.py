"""Directions out of other tools' files: nothing in them is run, and nothing is unpickled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from saepd.common.checks import check_choice
from saepd.common.errors import InputError
from saepd.common.files import file_sha256
from saepd.common.messages import nearest
from saepd.directions.applying import check_fits
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.interchange.registry import READERS

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def import_direction(
    path: str | Path,
    from_: str,
    model: TransformerBridge | None = None,
    *,
    perspective: str | None = None,
    hook_name: str | None = None,
    positions: str = "every",
    coefficient: float = 1.0,
) -> Direction:
    """Read the vectors of another tool as a direction that adds them, at each of their sites.

    Args:
        path: File of the other tool.
        from_: Name of the file's format, of those in `saepd.interchange.config.READ`.
        model: The model that they are for, to check that they fit it; a file does not say for sure.
        perspective: The direction's perspective; the file's name if not given.
        hook_name: The site of a single vector, where the file names none; of several vectors, the
            one that is read.
        positions: Where they act. Other tools write at every token unless told otherwise.
        coefficient: What they are multiplied by.

    Raises:
        InputError: an unknown format, a file that is missing, damaged, too large or of another
            form, a vector without a site, or vectors that do not fit the model.
    """
    path = Path(path).expanduser()
    check_choice("format", from_, READERS)
    vectors = READERS[from_](path)
    if hook_name is not None and len(vectors) > 1:
        if hook_name not in vectors:
            raise InputError(
                f"{path} holds vectors of {len(vectors)} sites and none of {hook_name}: "
                f"{nearest(hook_name, vectors, 5)}"
            )
        vectors = {hook_name: vectors[hook_name]}
    lineage = {"imported": {"format": from_, "file": path.name, "sha256": file_sha256(path)}}
    directions = []
    for named, vector in vectors.items():
        site = hook_name or named
        if not site:
            raise InputError(
                f"{path} does not say where its vector belongs: name the site, such as "
                "blocks.15.hook_resid_post"
            )
        try:
            edit = AddVector(torch.from_numpy(vector.copy()))
            directions.append(
                Direction(perspective or path.stem, site, edit, positions, coefficient, lineage)
            )
        except InputError as error:
            raise InputError(f"{path} has no usable vector for {site}: {error}") from error
    if not directions:
        raise InputError(f"{path} holds nothing but zeros: there is nothing to import")
    direction = replace(directions[0], also=tuple(directions[1:]))
    if model is not None:
        check_fits(model, [direction])
    return direction
