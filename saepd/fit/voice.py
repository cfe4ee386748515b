"""A new voice from few answers: a mixture of perspectives that are known already.

Ten answers are too few to learn a direction from, but they say which of the known perspectives a
person answers like. The log-odds of a question's options under each known direction, read with its
readout, are mixed with weights that the answers decide, drawn to the even mixture by a ridge; the
vectors and the readouts mix with the same weights. (A preference as a mixture of few that are
shared: LoRe, Bose et al., arXiv 2504.14439.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax

from saepd.common.errors import InputError
from saepd.directions.accepting import Directions, as_directions
from saepd.directions.adding import same_places
from saepd.directions.direction import Direction
from saepd.directions.fitted_readout import FittedReadout
from saepd.feedback.accepting import FeedbackLike, as_feedback
from saepd.fit.asked import Answer, Asked, Pair, ask
from saepd.fit.at_sites import added, direction_at
from saepd.fit.validate import folds
from saepd.metrics.intervals import Interval, draw_weights, interval
from saepd.metrics.weighted import mean
from saepd.readout.softmax import fit_softmax, option_features

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# Ridge penalties that are tried for how weights differ from even ones, in nats of an answer's mean
# loss per squared weight; the last leaves them even.
_RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 1e6)
_N_FOLDS = 5
# Ridge of the answers' own readout, which a mixture is held against.
_OWN_READOUT = 0.1

Weights = Float[np.ndarray, " known"]


class _Question(NamedTuple):
    """One answer, and the log-odds that each known perspective gives its options, nats."""

    known: Float[np.ndarray, "options known"]
    readout: Float[np.ndarray, "options readout"]
    target: Float[np.ndarray, " options"]


@dataclass(frozen=True, repr=False)
class Voice:
    """A direction of somebody who gave few answers.

    Attributes:
        direction: The mixture, with the readout that belongs to it.
        weights: Known perspective -> its weight; they sum to about 1, and may be negative.
        gain: Nats an answer gained over the even mixture on questions not seen, with its interval.
        in_span: Whether the mixture foretells the answers at least as well as a readout of their
            own; where it does not, none of what is known speaks like this voice.
    """

    direction: Direction
    weights: dict[str, float]
    gain: Interval | None
    in_span: bool

    def __repr__(self) -> str:
        weights = ", ".join(f"{name!r}: {weight:.2f}" for name, weight in self.weights.items())
        return f"Voice({self.direction.perspective!r}; {weights}; {self})"

    def __str__(self) -> str:
        """One sentence."""
        if not self.in_span:
            return (
                "Warning: a temperature and position biases of its own foretell this voice better "
                "than any mixture of the known perspectives: give more answers and fit it alone."
            )
        if self.gain is None:
            return "There are too few questions to say how well the mixture foretells answers."
        return (
            f"The mixture gains {self.gain.estimate:+.4f} nats an answer [{self.gain.low:+.4f}, "
            f"{self.gain.high:+.4f}] over the even one on questions not seen."
        )


def learn_voice(model: TransformerBridge, known: Directions, feedback: FeedbackLike) -> Voice:
    """Mix known perspectives into a new one, from about 5 to 20 of its answers.

    Args:
        model: The language model.
        known: Directions that `learn_directions` made together, of two perspectives or more.
        feedback: Answers of the one new perspective, to at least 5 questions.

    Raises:
        InputError: fewer than two directions, two of one name, some without a readout or with a
            gate, some that add no constant vector or are at different places, feedback of several
            perspectives, without answers among options or of one item in two wordings, or too few
            questions.
    """
    directions = as_directions(known)
    readouts = _readouts(directions)
    rows = as_feedback(feedback)
    names = dict.fromkeys(row.perspective for row in rows)
    if len(names) != 1:
        raise InputError(
            f"the feedback is of {len(names)} perspectives: give that of the one new voice"
        )
    first = directions[0]
    sites = [part.hook_name for part in first.parts]
    asked = ask(model, rows, sites, readouts[0].config, first.positions, lambda *_: None)
    questions = _questions(asked, directions, readouts)
    parts = folds(asked, _N_FOLDS)
    held_out = np.array(
        [next(i for i, p in enumerate(parts) if a.question in p) for a in asked.answers]
    )
    even = np.full(len(directions), 1 / len(directions))
    losses = {ridge: _foretold(questions, held_out, even, ridge) for ridge in _RIDGES}
    ridge = min(losses, key=lambda key: losses[key].mean())
    weights = _mix(questions, even, ridge)
    wordings = [asked.wordings[answer.question] for answer in asked.answers]
    gains = mean(losses[_RIDGES[-1]] - losses[ridge], draw_weights(wordings, seed=0))
    alone = _foretold_alone(questions, held_out)
    [name] = names
    vector = weights @ _vectors(directions)
    own_weights = np.sum([w * r.own for w, r in zip(weights, readouts, strict=True)], axis=0)
    direction = direction_at(
        name,
        sites,
        added(vector, len(sites)),
        positions=first.positions,
        lineage=first.lineage,
        readout=FittedReadout(readouts[0].config, readouts[0].base, own_weights),
    )
    shares = {d.perspective: float(w) for d, w in zip(directions, weights, strict=True)}
    return Voice(direction, shares, interval(gains), bool(losses[ridge].mean() <= alone.mean()))


def _readouts(directions: Sequence[Direction]) -> list[FittedReadout]:
    if len(directions) < 2:
        raise InputError("a mixture needs at least two known perspectives: give their directions")
    names = [direction.perspective for direction in directions]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"two known perspectives are called {twice[0]!r}: give each its own name")
    readouts = []
    for direction in directions:
        where = f"direction {direction.perspective!r}"
        if direction.readout is None:
            raise InputError(f"{where} has no readout: learn it with saepd.learn_directions")
        if direction.gate is not None or any(p.constant is None for p in direction.parts):
            raise InputError(f"{where} depends on the text, so it cannot be mixed with others")
        if not same_places(direction, directions[0]):
            raise InputError(f"{where} is at another place than the first: mix those of one fit")
        readouts.append(direction.readout)
    first = readouts[0]
    if any(one.config != first.config or len(one.own) != len(first.own) for one in readouts):
        raise InputError("the directions have readouts of different fits: mix those of one fit")
    return readouts


def _vectors(directions: Sequence[Direction]) -> Float[np.ndarray, "known sites*d_model"]:
    """What each direction adds at its sites, none of which depends on the text."""
    constants = [[part.constant for part in direction.parts] for direction in directions]
    return np.stack(
        [
            np.concatenate([one.double().cpu().numpy() for one in of_direction if one is not None])
            for of_direction in constants
        ]
    )


def _questions(
    asked: Asked, directions: Sequence[Direction], readouts: Sequence[FittedReadout]
) -> list[_Question]:
    moved = asked.moved(*(asked.everywhere(vector) for vector in _vectors(directions)))

    def one(answer: Answer) -> _Question:
        pair: Pair = (answer.question, None)
        features = option_features(asked.scores[answer.question], readouts[0].n_positions)
        logits = [features @ r.own + moves[pair] for r, moves in zip(readouts, moved, strict=True)]
        columns = np.stack(logits, axis=1)
        return _Question(columns - columns.mean(0), features, answer.target)

    return [one(answer) for answer in asked.answers]


def _mix(questions: Sequence[_Question], even: Weights, ridge: float) -> Weights:
    return fit_softmax(
        [one.known for one in questions],
        [one.target for one in questions],
        np.full(len(even), ridge),
        start=even,
    )


def _foretold(
    questions: Sequence[_Question], held_out: np.ndarray, even: Weights, ridge: float
) -> Float[np.ndarray, " answers"]:
    """Loss of each answer under weights that have not seen its question, nats."""
    losses = np.zeros(len(questions))
    for part in range(held_out.max() + 1):
        seen = [one for one, fold in zip(questions, held_out, strict=True) if fold != part]
        weights = _mix(seen, even, ridge)
        for i in np.flatnonzero(held_out == part).tolist():
            losses[i] = -(questions[i].target @ log_softmax(questions[i].known @ weights))
    return losses


def _foretold_alone(
    questions: Sequence[_Question], held_out: np.ndarray
) -> Float[np.ndarray, " answers"]:
    """The same under a readout of the answers' own, without any of what is known."""
    width = questions[0].readout.shape[1]
    penalty = np.concatenate([[0.0], np.full(width - 1, _OWN_READOUT)])
    losses = np.zeros(len(questions))
    for part in range(held_out.max() + 1):
        seen = [one for one, fold in zip(questions, held_out, strict=True) if fold != part]
        weights = fit_softmax([o.readout for o in seen], [o.target for o in seen], penalty)
        for i in np.flatnonzero(held_out == part).tolist():
            losses[i] = -(questions[i].target @ log_softmax(questions[i].readout @ weights))
    return losses
