"""What was written, and on request how each token came about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saepd.branches.writing.loop import EndedBy
from saepd.branches.writing.strip import Piece, token_strip
from saepd.common.frames import as_frame
from saepd.common.html import card, note, strip
from saepd.merge.disagreement import branch_disagreement, kl_from_base

if TYPE_CHECKING:
    import pandas as pd

N_TOP = 5

# What the log of a probability of zero counts as: -inf - -inf would be NaN.
_LOG_ZERO = -1e4
# Disagreement in nats that a notebook shades most.
_STRONG = 0.2


@dataclass(frozen=True)
class Likely:
    """A token that a branch gives much probability: its id, its own text, the probability."""

    token: int
    text: str
    probability: float


@dataclass(frozen=True)
class Step:
    """How one token of a merged text came about.

    Attributes:
        token: Id of the token.
        text: What the token says alone; a replacement character where that is part of a character.
        probability: Probability of the token in the merged distribution, before temperature and
            filters.
        base_token: What the base model alone would have written here; where tokens are drawn, by
            the same draw, with the same temperature and filters.
        moved_by: The branch that did most to replace ``base_token`` by ``token``: the one (from 1)
            in which the log-odds of these two rose most over the base. None where they are the
            same, or rose in no branch.
        disagreement: How far the branches, base included, disagree here: generalised
            Jensen-Shannon divergence, nats.
        kl: How far each steered branch moved this token's distribution: KL(base || branch), nats.
        top: For the base and every branch the most probable tokens, best first.
    """

    token: int
    text: str
    probability: float
    base_token: int
    moved_by: int | None
    disagreement: float
    kl: tuple[float, ...]
    top: tuple[tuple[Likely, ...], ...]


@dataclass(frozen=True, repr=False)
class Generated:
    """A text that was written. ``dataclasses.asdict`` of it holds JSON values only.

    Attributes:
        text: Up to the end, without a stop text and half a character.
        tokens: All that were written, those of a stop text included, the end-of-text token not.
        ended_by: ``eos``, the model's end of text; ``stop``, a stop text; ``length``; ``broken``
            where a branch gave no distribution, so that nothing could be written after this.
        steps: One for each token if a trace was asked for, else none.
    """

    text: str
    tokens: tuple[int, ...]
    ended_by: EndedBy
    steps: tuple[Step, ...] = ()

    def __repr__(self) -> str:
        traced = ", with a trace" if self.steps else ""
        return (
            f"Generated({self.text!r}; {len(self.tokens)} tokens, ended by {self.ended_by}{traced})"
        )

    def pieces(self, value: Callable[[Step], float]) -> list[Piece]:
        """The text cut into pieces, each with the largest number of the steps that wrote it.

        Args:
            value: The number of a step, such as its disagreement.
        """
        return token_strip(self.text, [(step.text, value(step)) for step in self.steps])

    def frame(self) -> pd.DataFrame:
        """One row for each step of a trace, as a pandas frame.

        Raises:
            InputError: pandas is missing.
        """
        rows = [asdict(step) for step in self.steps]
        return as_frame([{k: v for k, v in row.items() if k != "top"} for row in rows])

    def _repr_html_(self) -> str:
        shaded = strip(
            self.pieces(lambda step: step.disagreement),
            most=_STRONG,
            what="disagreement, nats:",
        )
        caption = "shaded by disagreement" if self.steps else "written without a trace"
        return card("text", shaded, note(f"ended by {self.ended_by}; {caption}"))


class Recorder:
    """Notes every step of several texts on the device, and reads all of them at the end."""

    def __init__(self) -> None:
        self._texts: list[int] = []
        self._notes: list[tuple[Tensor, ...]] = []

    def note(
        self,
        texts: Sequence[int],
        branches: Float[Tensor, "rows branches vocab"],
        merged: Float[Tensor, "rows vocab"],
        tokens: Int[Tensor, " rows"],
        base_tokens: Int[Tensor, " rows"],
    ) -> None:
        """Keep what a step says.

        Args:
            texts: Which text each row is.
            branches: Log-probs in nats.
            merged: Log-probs in nats.
            tokens: What was written.
            base_tokens: What the base would have written.
        """
        top = branches.topk(min(N_TOP, branches.shape[-1]), -1)
        rise, branch = log_odds_rise(branches, tokens, base_tokens).max(-1)
        moved = (branch + 1).where((tokens != base_tokens) & (rise > 0), 0)
        probability = merged.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).exp()
        self._texts += texts
        self._notes.append(
            (
                tokens,
                base_tokens,
                moved,
                probability,
                branch_disagreement(branches),
                kl_from_base(branches),
                top.indices,
                top.values.exp(),
            )
        )

    def steps(self, tokenizer: Any) -> dict[int, list[Step]]:
        """The steps of each text, that of its end-of-text token included."""
        said: dict[int, str] = {}

        def say(token: int) -> str:
            if token not in said:
                said[token] = tokenizer.decode([token], clean_up_tokenization_spaces=False)
            return said[token]

        steps: dict[int, list[Step]] = {}
        columns = [torch.cat(column).tolist() for column in zip(*self._notes, strict=True)]
        for text, row in zip(self._texts, zip(*columns, strict=True), strict=True):
            token, base_token, moved, probability, disagreement, kl, ids, probabilities = row
            top = tuple(
                tuple(Likely(i, say(i), p) for i, p in zip(*branch, strict=True))
                for branch in zip(ids, probabilities, strict=True)
            )
            step = Step(
                token,
                say(token),
                probability,
                base_token,
                moved or None,
                disagreement,
                tuple(kl),
                top,
            )
            steps.setdefault(text, []).append(step)
        return steps


def log_odds_rise(
    branches: Float[Tensor, "rows branches vocab"],
    tokens: Int[Tensor, " rows"],
    instead_of: Int[Tensor, " rows"],
) -> Float[Tensor, "rows steered"]:
    """How much the log-odds of one token against another rise from the base to each branch, nats.

    In the merges that add up log-probs, the rise in the merge is the weighted sum of these.
    """
    pair = torch.stack([tokens, instead_of], -1).unsqueeze(1).expand(-1, branches.shape[1], -1)
    log_probs = branches.clamp(min=_LOG_ZERO).gather(-1, pair)
    odds = log_probs[..., 0] - log_probs[..., 1]
    return odds[:, 1:] - odds[:, :1]
