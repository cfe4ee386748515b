"""What feedback must have that directions can be learned from, known before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from saepd.common.errors import InputError
from saepd.feedback.schema import Feedback
from saepd.feedback.splits import question_key

# Questions below which what is foretold about one of them says nothing.
_FEWEST = 5


def check_learnable(rows: Sequence[Feedback], n_folds: int) -> None:
    """Refuse feedback without options, or on too few questions to foretell any from others.

    Args:
        rows: The feedback.
        n_folds: Parts of the questions in cross-validation.

    Raises:
        InputError: naming the first row without options, or how many questions there are.
    """
    check_options(rows)
    check_questions(len({question_key(row.prompt) for row in rows}), n_folds)


def check_options(rows: Sequence[Feedback]) -> None:
    """Refuse a row without options.

    Raises:
        InputError: naming the first such row.
    """
    for row in rows:
        if not row.options:
            raise InputError(
                f"feedback {row.id!r} has no options to have answered among, which learning needs: "
                "leave it out, or fit differences of means (--method differences)"
            )


def check_questions(n_questions: int, n_folds: int) -> None:
    """Refuse fewer questions than parts, but for a few that are enough.

    Raises:
        InputError: saying how many are needed.
    """
    fewest = min(n_folds, _FEWEST)
    if n_questions < fewest:
        raise InputError(
            f"cross-validation needs feedback on at least {fewest} questions, not on "
            f"{n_questions}: give more, or fit differences of means (--method differences)"
        )
