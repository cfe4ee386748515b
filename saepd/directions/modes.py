"""What an edit may do to latents."""

from __future__ import annotations

from typing import Literal, get_args

Mode = Literal["add", "scale", "clamp", "ablate", "reconstruct"]


MODES: tuple[str, ...] = get_args(Mode)


DEFAULT_POSITIONS = "answer"
