"""Linear probes: what can be read from the model's states without asking it anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from saepd.evaluation.fold import Fold, Options, Predictions
from saepd.evaluation.item_cache import ByItem
from saepd.feedback.schema import Feedback, Item
from saepd.feedback.targets import answered

# Inverse strength of the penalty on standardised features, weakest last.
_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_N_PARTS = 5

ProbeInputs = Float[np.ndarray, "rows features"]


def probe_residuals(fold: Fold) -> Predictions:
    """Logistic regression on the residual, mean over the prompt."""
    return _probe(fold, fold.cache.residuals)


def probe_latents(fold: Fold) -> Predictions:
    """Logistic regression on the SAE's latents, mean over the prompt."""
    return _probe(fold, fold.cache.latents)


def _probe(fold: Fold, features: ByItem) -> Predictions:
    probes = {name: _Probe(fold.rows(name), features, fold.seed) for name in fold.perspectives}
    return fold.predict(lambda item, name: probes[name](item, features[item.id]))


class _Probe:
    """From an item's features to its options, matched by their texts."""

    def __init__(self, rows: Sequence[Feedback], features: ByItem, seed: int) -> None:
        self.options = sorted({option for row in rows for option in row.options})
        inputs = np.array([features[row.item] for row in rows], dtype=np.float64)
        targets = np.zeros((len(rows), len(self.options)))
        for target, row in zip(targets, rows, strict=True):
            target[[self.options.index(option) for option in row.options]] = answered(row)
        self.centre, spread = inputs.mean(0), inputs.std(0)
        # A feature that never varies says nothing here, whatever it does elsewhere.
        self.scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-8)
        inputs = (inputs - self.centre) * self.scale
        self.fitted = _fit(inputs, targets, _best_strength(inputs, targets, seed))

    def __call__(self, item: Item, features: Options) -> Options:
        shares = _shares(self.fitted, (features[None] - self.centre) * self.scale)[0]
        known = dict(zip(self.options, shares, strict=True))
        # An option that no feedback had on its list shares what is left, which may be nothing.
        shares = np.array([known.get(option, 0.0) for option in item.options])
        total = shares.sum()
        return shares / total if total > 0 else np.full(len(shares), 1 / len(shares))


def _fit(
    inputs: ProbeInputs, targets: ProbeInputs, strength: float
) -> tuple[Any, Float[np.ndarray, " options"]]:
    """A regression (None if there is one class only) and the mean answer."""
    from sklearn.linear_model import LogisticRegression

    mean = targets.mean(0)
    if (mean > 0).sum() < 2:
        return None, mean
    rows, classes = np.nonzero(targets)
    # A distribution is as many rows as it has options, each weighing its share.
    model = LogisticRegression(C=strength, max_iter=500)
    return model.fit(inputs[rows], classes, sample_weight=targets[rows, classes]), mean


def _shares(
    fitted: tuple[Any, Float[np.ndarray, " options"]], inputs: ProbeInputs
) -> Float[np.ndarray, "rows options"]:
    model, mean = fitted
    if model is None:
        return np.tile(mean, (len(inputs), 1))
    shares = np.zeros((len(inputs), len(mean)))
    shares[:, model.classes_] = model.predict_proba(inputs)
    return shares


def _best_strength(inputs: ProbeInputs, targets: ProbeInputs, seed: int) -> float:
    """The strength whose cross-validated loss on the feedback is lowest."""
    parts = _parts(targets.argmax(1), seed)

    def loss(strength: float) -> float:
        total = 0.0
        for part in np.unique(parts):
            inside = parts != part
            fitted = _fit(inputs[inside], targets[inside], strength)
            shares = np.clip(_shares(fitted, inputs[~inside]), 1e-6, 1.0)
            total -= float((targets[~inside] * np.log(shares)).sum())
        return total

    if len(np.unique(parts)) < 2:
        return _STRENGTHS[0]
    return min(_STRENGTHS, key=loss)


def _parts(labels: Int[np.ndarray, " rows"], seed: int) -> Int[np.ndarray, " rows"]:
    """The part of each row; every label is spread over all parts."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    parts = np.empty(len(labels), dtype=int)
    parts[order] = np.arange(len(labels)) % _N_PARTS
    return parts
