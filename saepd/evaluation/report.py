"""From predictions to the rows of a results table, and from rows to text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saepd.evaluation.experiment import EVERYBODY, Example, Prediction
from saepd.features.evidence import LatentEvidence
from saepd.metrics.distances import (
    accuracy,
    bootstrap_interval,
    js_distance,
    paired_difference,
    total_variation,
)

BASELINES = ("zero-shot", "train-mean")


def result_rows(predictions: Sequence[Prediction], seed: int) -> list[dict[str, Any]]:
    """One row per method and perspective, and one per method over all perspectives.

    Each row holds the mean JS distance (base 2) with its 95% bootstrap interval over questions,
    total variation, the share of questions whose most frequent answer was predicted, and the
    paired difference of the JS distance to zero-shot and to train-mean with their intervals
    (negative is better).
    """
    methods = list(dict.fromkeys(p.method for p in predictions))
    perspectives = list(dict.fromkeys(p.perspective for p in predictions))
    rows = []
    for method in methods:
        for name in [*perspectives, EVERYBODY]:
            own = _chosen(predictions, method, name)
            predicted, gold = [p.predicted for p in own], [p.gold for p in own]
            questions = [p.item.id for p in own]
            distances = js_distance(predicted, gold)
            interval = bootstrap_interval(distances, questions=questions, seed=seed)
            labels = [int(g.argmax()) for g in gold]
            row: dict[str, Any] = {
                "method": method,
                "perspective": name,
                "n_items": len(set(questions)),
                "js_distance": interval.estimate,
                "js_ci": [interval.low, interval.high],
                "tv": float(np.mean(total_variation(predicted, gold))),
                "accuracy": float(np.mean(accuracy(predicted, labels))),
            }
            for baseline in BASELINES:
                if baseline == method:
                    continue
                other = _chosen(predictions, baseline, name)
                difference = paired_difference(
                    distances,
                    js_distance([p.predicted for p in other], gold),
                    questions=questions,
                    seed=seed,
                )
                row[f"js_minus_{baseline.replace('-', '_')}"] = list(difference)
            rows.append(row)
    return rows


def example_dict(example: Example) -> dict[str, Any]:
    """One held-out question in full, as JSON values."""
    return {
        "item": example.item.id,
        "prompt": example.item.prompt,
        "options": list(example.item.options),
        "branches": {name: p.tolist() for name, p in example.branches.items()},
        "pluralistic": example.merged.tolist(),
        "people": {name: p.tolist() for name, p in example.gold.items()},
    }


def evidence_dict(evidence: LatentEvidence) -> dict[str, Any]:
    """What is known about one latent, as JSON values; None where a score was never computed."""
    return {
        "latent": evidence.latent,
        "perspective": evidence.perspective,
        "tokens": evidence.tokens,
        "contexts": [{"text": t, "activation": a} for t, a in evidence.contexts],
        "score": _finite(evidence.score),
        "effect": evidence.effect,
        # Latents that were kept without being screened have none.
        "stability": _finite(evidence.stability),
        "density": evidence.density,
        "output_score": evidence.output_score,
    }


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows over all perspectives as a Markdown table, best JS distance first."""
    lines = [
        "| method | JS distance | 95% interval | total variation | accuracy | minus zero-shot |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    everybody = [row for row in rows if row["perspective"] == EVERYBODY]
    for row in sorted(everybody, key=lambda row: row["js_distance"]):
        low, high = row["js_ci"]
        difference = row.get("js_minus_zero_shot")
        versus = "" if difference is None else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*difference)
        lines.append(
            f"| {row['method']} | {row['js_distance']:.3f} | {low:.3f} to {high:.3f} "
            f"| {row['tv']:.3f} | {row['accuracy']:.2f} | {versus} |"
        )
    return "\n".join(lines)


def _finite(value: float) -> float | None:
    """JSON knows no NaN, which is what latents that were not screened have."""
    return value if math.isfinite(value) else None


def _chosen(predictions: Sequence[Prediction], method: str, perspective: str) -> list[Prediction]:
    return [
        p for p in predictions if p.method == method and perspective in (p.perspective, EVERYBODY)
    ]
