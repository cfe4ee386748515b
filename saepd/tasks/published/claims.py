"""Claims labelled by named annotators with comments, in the form of MisLC (Luo et al. 2024).

A CSV or JSONL file with the columns ``claim``, ``label`` and ``annotator``, and optionally
``comment`` and ``topic``; a row is what one annotator said about one claim. The label answers
whether the claim is misinformation: yes, no or unclear (or 1, 0, unsure; misinformation, not
misinformation). "True" and "false" are refused, because they may be said of the claim. Every
annotator is a perspective. "Unclear" is an option where somebody used it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saepd.common.messages import shortened
from saepd.feedback.schema import Feedback, Item
from saepd.feedback.texts import fingerprint
from saepd.tasks.published.labels import NO, YES, yes_no_wording
from saepd.tasks.published.sources import BadField, parsed, read_table, text_in
from saepd.tasks.task import LABEL_METRICS, Task

UNCLEAR = "Unclear"
_LABELS = {
    "no": NO,
    "0": NO,
    "not misinformation": NO,
    "yes": YES,
    "1": YES,
    "misinformation": YES,
    "unclear": UNCLEAR,
    "unsure": UNCLEAR,
}


@dataclass(frozen=True)
class _Claim:
    text: str
    answer: str
    annotator: str
    comment: str | None
    topic: str


def load_claims(path: Path) -> Task:
    """The claims of a file, with the annotators' own rows and comments as feedback.

    Raises:
        InputError: the file cannot be read, lacks a column, or a row has an unknown label or says
            again what its annotator said before.
    """
    rows = read_table(path, ["claim", "label", "annotator"])
    claims = parsed(path, rows, _parser())
    unclear = any(claim.answer == UNCLEAR for claim in claims)
    options = (NO, YES, UNCLEAR) if unclear else (NO, YES)
    golds: dict[str, dict[str, tuple[float, ...]]] = {}
    topics: dict[str, str] = {}
    for claim in claims:
        gold = tuple(float(option == claim.answer) for option in options)
        golds.setdefault(claim.text, {})[claim.annotator] = gold
        topics.setdefault(claim.text, claim.topic)
    ids = {text: f"{fingerprint(text, *options):016x}" for text in golds}
    return Task(
        name="claims",
        items=tuple(
            Item(id=ids[text], prompt=text, options=options, topic=topics[text], distributions=gold)
            for text, gold in golds.items()
        ),
        wording=yes_no_wording("Claim", "Is this claim misinformation", {}),
        # With a third option there is no score to rank by, hence no AUROC.
        metrics=tuple(name for name in LABEL_METRICS if name != "auroc" or not unclear),
        feedback=tuple(
            Feedback(
                id=f"{ids[claim.text]}-{claim.annotator}",
                item=ids[claim.text],
                perspective=claim.annotator,
                prompt=claim.text,
                options=options,
                answer=claim.answer,
                comment=claim.comment,
            )
            for claim in claims
        ),
        positive=YES,
    )


def _parser() -> Callable[[dict[str, Any]], _Claim]:
    seen: set[tuple[str, str]] = set()

    def claim_in(row: dict[str, Any]) -> _Claim:
        # JSON may hold the labels 0 and 1 as numbers.
        label = row.get("label")
        label = str(label) if label in (0, 1) else text_in(row, "label")
        if label.lower() not in _LABELS:
            raise BadField(
                "label", f"{shortened(label)} is no label: use one of {', '.join(_LABELS)}"
            )
        text, annotator = text_in(row, "claim"), text_in(row, "annotator")
        if (text, annotator) in seen:
            raise BadField("annotator", f"{shortened(annotator)} labelled this claim before")
        seen.add((text, annotator))
        return _Claim(
            text,
            _LABELS[label.lower()],
            annotator,
            text_in(row, "comment") if str(row.get("comment") or "").strip() else None,
            text_in(row, "topic") if str(row.get("topic") or "").strip() else "",
        )

    return claim_in
