"""How latents are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from saepd.common.checks import check_choice, check_number

ReadAt = Literal["last", "mean"]


Contrast = Literal["options", "anchor", "others"]


@dataclass(frozen=True)
class FeatureConfig:
    """How latents are chosen.

    Attributes:
        k: Latents kept per perspective; 0 keeps all that fire, unscreened (the paper's recipe).
        read_at: Where in a text latents are read: at its ``last`` token, or as their ``mean`` over
            it.
        contrast: What an answer's latents are compared with: the item's ``options``, the bare item
            (``anchor``), or the answers of ``others``.
        n_bootstrap: Bootstrap draws of the feedback, which measure how stable the choice is.
        min_stability: Share of the bootstrap draws in which a latent must be chosen.
        max_density: Share of positions at which a latent may fire; those that fire at more are
            dropped.
        bootstrap_seed: Seed of the draws that measure stability.

    Raises:
        InputError: a number is out of range, or a name is unknown.
    """

    k: int = 32
    read_at: ReadAt = "last"
    contrast: Contrast = "others"
    n_bootstrap: int = 100
    min_stability: float = 0.5
    max_density: float = 0.3
    bootstrap_seed: int = 0

    @property
    def encoding(self) -> tuple[str, str]:
        """Which texts are encoded, and where they are read; configurations that agree in it share
        their encoded feedback, whatever they select.
        """
        # The other two contrasts read the same texts.
        return "options" if self.contrast == "options" else "bare", self.read_at

    def __post_init__(self) -> None:
        check_number("k", self.k, at_least=0, whole=True)
        check_number("n_bootstrap", self.n_bootstrap, at_least=1, whole=True)
        check_number("bootstrap_seed", self.bootstrap_seed, at_least=0, whole=True)
        check_choice("read_at", self.read_at, get_args(ReadAt))
        check_choice("contrast", self.contrast, get_args(Contrast))
        check_number("min_stability", self.min_stability, at_least=0, at_most=1)
        check_number("max_density", self.max_density, at_least=0, at_most=1)
