"""What an edit may do to latents."""

from __future__ import annotations

from typing import Literal, get_args

EditMode = Literal["add", "scale", "clamp", "ablate"]

EDIT_MODES: tuple[str, ...] = get_args(EditMode)

DEFAULT_POSITIONS = "answer"
