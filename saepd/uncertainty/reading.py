"""How the scores of options become probabilities before anybody is asked: temperature, offsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.feedback.accepting import FeedbackLike, as_feedback
from saepd.feedback.schema import Item
from saepd.feedback.targets import answered
from saepd.models.wording import ReadoutConfig
from saepd.readout.calibrate import fit_temperature, option_offsets
from saepd.readout.fitted import as_fitted, fitted_weights
from saepd.readout.options import read_options

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class Reading:
    """How the scores of options become probabilities.

    Attributes:
        temperature: Temperature that perspectives, sway and ``least_confidence_scaled`` are read
            at.
        offsets: Options -> what is taken off their scores, nats; see
            `saepd.readout.calibrate.option_offsets`.
        of_fitted: Whether the temperature is one of the answers that directions' fitted readout
            gives, rather than of the model's own scores.
    """

    temperature: float = 1.0
    offsets: Mapping[tuple[str, ...], Float[Tensor, " options"]] = field(default_factory=dict)
    of_fitted: bool = False


def fit_reading(
    model: TransformerBridge,
    items: Sequence[Item],
    feedback: FeedbackLike | None = None,
    config: ReadoutConfig | None = None,
    *,
    centre: bool = False,
    directions: Sequence[Direction] = (),
) -> Reading:
    """A temperature from what people answered, and offsets from the items alone if asked for.

    Where the directions carry a readout that was fitted with them, the temperature is that of what
    it makes of the base.

    Args:
        model: The language model.
        items: Those that will be assessed; those in free text are passed over.
        feedback: Rows on options, a file of them or a pandas frame; without any, the temperature
            is 1.
        config: How options are read.
        centre: Take off what the base model gives options whatever is asked, over all questions
            here that share them; see `saepd.readout.calibrate.option_offsets`.
        directions: Those that items will be assessed with.

    Raises:
        InputError: offsets for directions whose fitted readout has biases already, rows of feedback
            that are wrong, or whatever `read_options` refuses.
    """
    weights = fitted_weights([[direction] for direction in directions], config)
    if centre and weights is not None:
        raise InputError(
            "these directions carry a fitted readout, whose biases take off what the model gives "
            "options whatever is asked: leave out centring"
        )
    rows = [] if feedback is None else as_feedback(feedback)
    chosen = [row for row in rows if row.options and (row.answer or row.distribution)]
    asked = {row.item: row.as_item() for row in chosen}
    if centre:
        asked |= {item.id: item for item in items if item.options}
    if not asked:
        return Reading(of_fitted=weights is not None)
    questions = list(asked.values())
    scores = read_options(model, questions, [], config)
    if weights is not None:
        scores = [replace(row, scores=as_fitted(row.scores, weights[:1])) for row in scores]
    offsets = option_offsets(scores, questions) if centre else {}
    if not chosen:
        return Reading(offsets=offsets)
    by_id = {item.id: row.scores[0] for item, row in zip(questions, scores, strict=True)}
    centred = [by_id[row.item] - offsets.get(row.options, 0.0) for row in chosen]
    temperature = fit_temperature(centred, [answered(row) for row in chosen])
    return Reading(temperature, offsets, of_fitted=weights is not None)
