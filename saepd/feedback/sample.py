"""Draw a few rows of feedback of every perspective."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saepd.common.errors import InputError
from saepd.common.messages import shortened
from saepd.feedback.accepting import FeedbackLike, as_feedback
from saepd.feedback.schema import Feedback


def sample_feedback(
    feedback: FeedbackLike, n: int, seed: int, perspectives: Sequence[str] | None = None
) -> list[Feedback]:
    """Draw n rows of each perspective without replacement.

    A perspective's draw depends on its own rows and the seed only: not on the order of the rows,
    nor on which other perspectives there are. A smaller draw is the beginning of a larger one.

    Args:
        feedback: Rows of any perspectives, a file of them or a pandas frame.
        n: Rows per perspective.
        seed: Any integer from 0.
        perspectives: Names of the perspectives whose rows are drawn, in this order; all, sorted by
            name, if None.

    Returns:
        n rows of the first perspective, then n of the next.

    Raises:
        InputError: n is not positive, a perspective has fewer than n rows, two rows share an id, or
            a row is wrong.
    """
    if n < 1:
        raise InputError(f"cannot draw {n} rows of feedback: draw at least 1 per perspective")
    groups: dict[str, list[Feedback]] = {}
    for row in as_feedback(feedback):
        groups.setdefault(row.perspective, []).append(row)
    drawn = []
    for perspective in sorted(groups) if perspectives is None else perspectives:
        group = sorted(groups.get(perspective, []), key=lambda row: row.id)
        if len(group) < n:
            raise InputError(
                f"cannot draw {n} rows of perspective {shortened(perspective)}: there are "
                f"{len(group)}; draw fewer, or add feedback"
            )
        rng = np.random.default_rng([seed, *perspective.encode()])
        drawn += [group[i] for i in rng.permutation(len(group))[:n]]
    return drawn
