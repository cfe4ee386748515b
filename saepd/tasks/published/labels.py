"""What tasks with a Yes and a No have in common."""

from __future__ import annotations

from collections.abc import Mapping

from saepd.tasks.task import Wording

NO, YES = "No", "Yes"


def yes_no_wording(noun: str, question: str, names: Mapping[str, str]) -> Wording:
    """A quoted text and a question about it.

    Args:
        noun: What the text is, as in ``Tweet``.
        question: What is asked, without its question mark, as in ``Is this tweet hate speech``.
        names: What a perspective is called in a prompt.
    """
    quoted = f'{noun}: "{{prompt}}"\n{question}'
    return Wording(
        plain=f"{quoted}? Answer:",
        chat=f"{quoted}? Answer Yes or No.",
        persona=f"{quoted} according to {{perspective}}? Answer:",
        names=names,
    )
