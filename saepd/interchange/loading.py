"""A steering folder with everything that it names: model, SAE, directions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.lineage import read_lineage
from saepd.directions.saving import load_from_disk
from saepd.models.load import load_model

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def load_steering(
    folder: str | Path | None, *, device: str | None = None
) -> tuple[TransformerBridge, list[Direction]]:
    """The model that a folder names, and its directions; without a folder, the packaged model.

    Args:
        folder: What `saepd.save_to_disk` wrote.
        device: Where the model goes.

    Raises:
        InputError: a folder that cannot be read or names no model, or what it names cannot be
            loaded.
    """
    if folder is None:
        return load_model(device=device), []
    where = read_lineage(folder).where
    if where is None:
        raise InputError(
            f"{folder} does not say how its model was loaded: load model and directions yourself"
        )
    model = load_model(where.model, **{**where.model_settings(), "device": device})
    return model, load_from_disk(folder, model)
