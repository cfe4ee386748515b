"""What every branch says about one item's options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float, Int
from torch import Tensor

from saepd.common.checks import check_number
from saepd.common.frames import as_frame
from saepd.common.html import bar, card, note, table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class OptionScores:
    """What every branch says about one item's options.

    Attributes:
        scores: Log-probs in nats: of the options' texts or letters, not normalised over the
            options; or of the answers that a fitted readout makes of them.
        mass: Probability that the options hold together, per branch.
        n_tokens: Number of tokens that each score is a mean over: those of the option's text where
            scores are normalised by length, else 1.
        warning: Why the scores should not be trusted, or an empty string.
        options: Texts of the options; empty where they are not known.
        branches: Names of the branches, the base first; empty where they are not known.
    """

    scores: Float[Tensor, "branches options"]
    mass: Float[Tensor, " branches"]
    n_tokens: Int[Tensor, " options"]
    warning: str = ""
    options: tuple[str, ...] = ()
    branches: tuple[str, ...] = ()

    def __repr__(self) -> str:
        branches, options = self._names()
        lines = (
            f"  {name}: " + ", ".join(f"{o} {p:.2f}" for o, p in zip(options, row, strict=True))
            for name, row in zip(branches, self._shares(), strict=True)
        )
        warned = [f"  warning: {self.warning}"] if self.warning else []
        return "\n".join(["OptionScores(", *lines, *warned]) + ")"

    @property
    def log_likelihoods(self) -> Float[Tensor, "branches options"]:
        """Log-likelihoods of the options' whole texts, or of their letters, in nats."""
        return self.scores * self.n_tokens

    def log_probs(self, temperature: float = 1.0) -> Float[Tensor, "branches options"]:
        """Normalised log-probs over the options, in nats.

        Raises:
            InputError: a temperature that is no positive number.
        """
        check_number("the temperature", temperature, above=0)
        return (self.scores / temperature).log_softmax(-1)

    def frame(self) -> pd.DataFrame:
        """One row for each branch and option, as a pandas frame.

        Raises:
            InputError: pandas is missing.
        """
        branches, options = self._names()
        return as_frame(
            [
                {
                    "branch": branch,
                    "option": option,
                    "score": float(self.scores[i, j]),
                    "probability": float(row[j]),
                }
                for i, (branch, row) in enumerate(zip(branches, self._shares(), strict=True))
                for j, option in enumerate(options)
            ]
        )

    def _names(self) -> tuple[Sequence[str], Sequence[str]]:
        n_branches, n_options = self.scores.shape
        numbered = ["base", *(f"branch {i}" for i in range(1, n_branches))]
        return (
            self.branches or numbered,
            self.options or [f"option {i}" for i in range(1, n_options + 1)],
        )

    def _shares(self) -> list[list[float]]:
        return self.log_probs().exp().tolist()

    def _repr_html_(self) -> str:
        branches, options = self._names()
        rows = [
            [name, *map(bar, row), mass]
            for name, row, mass in zip(branches, self._shares(), self.mass.tolist(), strict=True)
        ]
        return card(
            "option probabilities",
            table(["branch", *options, "mass"], rows),
            note(self.warning) if self.warning else "",
        )
