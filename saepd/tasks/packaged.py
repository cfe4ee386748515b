"""The packaged survey as a task: real answers by party identification, no file needed."""

from __future__ import annotations

from collections import Counter

from saepd.feedback.survey import survey_feedback, survey_items
from saepd.tasks.ordinal import ordinal_items
from saepd.tasks.task import OPINION_METRICS, SURVEY_WORDING, Task


def packaged_survey() -> Task:
    """25 questions of the General Social Survey with every respondent's answers."""
    items, feedback = tuple(survey_items()), tuple(survey_feedback())
    respondents = {(row.perspective, row.id.removeprefix(f"{row.item}-")) for row in feedback}
    return Task(
        name="gss",
        items=items,
        wording=SURVEY_WORDING,
        metrics=OPINION_METRICS,
        feedback=feedback,
        ordinal=ordinal_items(items),
        population=Counter(perspective for perspective, _ in respondents),
    )
