"""How much better a branch does than the base, question by question."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np

from saepd.metrics.intervals import draw_weights, interval

# What the harness calls it where answers are read as they are.
NO_FILTER = "none"


def paired_with_base(
    results: Mapping[str, Mapping[str, Any]], base: str = "base", seed: int = 0
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Mean differences from the base's results with 95% intervals, by branch, task and metric.

    The intervals are bootstrapped over questions; each draw takes the same questions of both. A
    metric of answers that were filtered first has the harness's own name for it, ``name,filter``.

    Args:
        results: The harness's results of every branch, with samples.
        base: The branch that the others are compared with.
        seed: Seed of the draws.
    """
    differences: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for name, result in results.items():
        if name == base:
            continue
        for task, samples in result["samples"].items():
            values = _values(results[base]["samples"][task])
            for metric, by_document in _values(samples).items():
                documents = sorted(by_document.keys() & values.get(metric, {}).keys())
                if not documents:
                    continue
                difference = np.array([by_document[d] - values[metric][d] for d in documents])
                weights = draw_weights(documents, seed)
                per_draw = weights @ difference / weights.sum(-1)
                between = interval(per_draw)
                if between is not None:
                    metrics = differences.setdefault(name, {}).setdefault(task, {})
                    metrics[metric] = {k: float(v) for k, v in between._asdict().items()}
    return differences


def _values(samples: list[dict[str, Any]]) -> dict[str, dict[int, float]]:
    """Numbers of every metric, by document."""
    values: dict[str, dict[int, float]] = {}
    for sample in samples:
        # A task with several ways to read an answer has a sample of each document for each way.
        way = sample.get("filter", NO_FILTER)
        behind = "" if way == NO_FILTER else f",{way}"
        for metric in sample["metrics"]:
            if isinstance(value := sample.get(metric), Real):
                values.setdefault(f"{metric}{behind}", {})[int(sample["doc_id"])] = float(value)
    return values
