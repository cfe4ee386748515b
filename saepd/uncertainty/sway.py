"""How easily each direction moves an answer: what a perspective could make the model say.

A direction's own coefficient is its budget, such as the largest that leaves neutral text within a
KL budget (`saepd.fit.budget.fit_kl_budget`); everything here is in multiples of it, so that
directions compare. Many coefficients run as branches of one pass over a captured prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saepd.branches.captured import CapturedPrompts, capture_prompts
from saepd.common.errors import InputError
from saepd.directions.direction import Direction

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# Up to eight times the budget, beyond which hardly any text is left of a text.
MULTIPLES = tuple(2.0**i for i in range(-5, 4))
# Points tried inside the interval of the multiples in which an answer flips.
_REFINED = 7

# From scores [rows, continuations] to log-probs [rows, answers], nats. The rows are the base's and
# then one direction's at several coefficients; the number is that direction's place. All rows are
# read alike, so that what differs between them is what the direction does.
Read = Callable[["Float[Tensor, 'rows texts']", int], "Float[Tensor, 'rows answers']"]


class Sway(NamedTuple):
    """How easily an item's answer is moved, by each direction alone.

    Attributes:
        moved: Largest total variation between the base's answers and the steered ones, at any
            coefficient within the budget: 0 (nothing moves) to 1.
        flip: Smallest multiple of the budget at which another answer than the base's is the most
            probable one, to within a factor of 2^(1/8); inf where none up to 8 flips it.
    """

    moved: Float[np.ndarray, " directions"]
    flip: Float[np.ndarray, " directions"]

    @property
    def ease(self) -> float:
        """1 / the smallest flip: 0 where nothing flips the answer, 1 or more within the budget."""
        return float(1 / self.flip.min())


def sway(
    model: TransformerBridge,
    prompts: Sequence[str],
    continuations: Sequence[Sequence[str]],
    directions: Sequence[Direction],
    read: Sequence[Read],
) -> list[Sway]:
    """Find out how far each direction moves each prompt's answer, and what flips it.

    Each prompt is captured once. One pass tries every direction at multiples of its coefficient
    from 1/32 to 8; a second one refines the first interval at whose end the answer has flipped.

    Args:
        model: The language model.
        prompts: Texts of any lengths.
        continuations: The answers to each prompt, or texts that stand for them.
        directions: At the coefficients of their budgets.
        read: For each prompt, how scores of its continuations become answers.

    Raises:
        InputError: no directions, a coefficient of zero, or whatever `capture_prompts` refuses.
    """
    if not directions:
        raise InputError("no directions: give at least one to be swayed by")
    for direction in directions:
        if direction.coefficient == 0:
            raise InputError(
                f"direction {direction.perspective!r} has the coefficient 0, of which no multiple "
                "moves anything: give it the one of its budget"
            )
    parts = [part for direction in directions for part in direction.parts]
    lowest = min(parts, key=lambda part: part.block).hook_name
    specs = {part.positions for part in parts}
    earliest = specs.pop() if len(specs) == 1 else "every"
    sways = []
    for prompt, texts, one in zip(prompts, continuations, read, strict=True):
        captured = capture_prompts(
            model, [prompt], lowest, positions=earliest, continuations=[texts]
        )
        sways.append(_swayed(captured, directions, one))
    return sways


def _swayed(captured: CapturedPrompts, directions: Sequence[Direction], read: Read) -> Sway:
    multiples = [MULTIPLES] * len(directions)
    distances, flipped = _answers(captured, dict(enumerate(directions)), multiples, read)
    within = np.array([m <= 1 for m in MULTIPLES])
    moved = np.array([distance[within].max() for distance in distances])
    flip = np.full(len(directions), np.inf)
    crossing = [i for i, flips in enumerate(flipped) if flips.any()]
    if crossing:
        brackets = []
        for i in crossing:
            first = int(flipped[i].argmax())
            low = MULTIPLES[first - 1] if first else MULTIPLES[0] / 2
            flip[i] = MULTIPLES[first]
            step = (MULTIPLES[first] / low) ** (1 / (_REFINED + 1))
            brackets.append(tuple(low * step**n for n in range(1, _REFINED + 1)))
        _, finer = _answers(captured, {i: directions[i] for i in crossing}, brackets, read)
        for i, flips, points in zip(crossing, finer, brackets, strict=True):
            if flips.any():
                flip[i] = points[int(flips.argmax())]
    return Sway(moved, flip)


def _answers(
    captured: CapturedPrompts,
    directions: Mapping[int, Direction],
    multiples: Sequence[Sequence[float]],
    read: Read,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Of every direction and multiple: total variation to the base, and whether it flips."""
    branches = [
        direction.scaled(m * direction.coefficient)
        for direction, points in zip(directions.values(), multiples, strict=True)
        for m in points
    ]
    [scores] = captured.score_continuations(branches)
    base, *steered = scores.log_probs.double().split([1, *map(len, multiples)])
    distances, flips = [], []
    for place, log_probs in zip(directions, steered, strict=True):
        shares = read(torch.cat([base, log_probs]), place).exp()
        # Half precision may overflow at large coefficients; what is no number is no answer.
        distance = ((shares[1:] - shares[0]).abs().sum(-1) / 2).nan_to_num(nan=0.0)
        distances.append(distance.numpy())
        flips.append((shares[1:].amax(-1) > shares[1:, int(shares[0].argmax())]).numpy())
    return distances, flips
