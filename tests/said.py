"""Rows of feedback that features are chosen from."""

from saepd.feedback.schema import Feedback

OPTIONS = ("Yes", "No", "Not sure")


def feedback(i, perspective="ours", **answer):
    """A row on one question; its answer is Yes unless something else is said."""
    settings = {"prompt": "Is it so?", "options": OPTIONS, "answer": None} | answer
    if not answer.keys() & {"answer", "comment", "distribution"}:
        settings["answer"] = "Yes"
    return Feedback(id=f"r{i}", perspective=perspective, **settings)


def opposed(for_, against):
    """Six rows of each of two perspectives, which answer all that is asked the other way round."""
    return [
        Feedback(
            id=f"{name} {i}",
            perspective=name,
            prompt=f"Question {i}{'?' * (i % 3)}",
            options=("Yes", "No"),
            answer=answer,
        )
        for name, answer in ((for_, "Yes"), (against, "No"))
        for i in range(6)
    ]
