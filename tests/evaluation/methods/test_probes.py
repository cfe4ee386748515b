from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from saepd.evaluation.methods import probes


@pytest.mark.parametrize("method", [probes.probe_residuals, probes.probe_latents])
def test_probes_are_regressions_on_standardised_features(label_fold, monkeypatch, method):
    monkeypatch.setattr(probes, "_STRENGTHS", (0.01,))
    cache = label_fold.cache
    features = cache.residuals if method is probes.probe_residuals else cache.latents
    found = method(label_fold)
    assert set(found) == set(label_fold.asked)
    for name in label_fold.perspectives:
        rows = [row for row in label_fold.feedback if row.perspective == name]
        x = np.array([features[r.item] for r in rows], dtype=float)
        varies = x.std(0) > 1e-8
        centre, scale = x.mean(0)[varies], x.std(0)[varies]
        z = (x[:, varies] - centre) / scale
        y = np.repeat([0, 1], len(rows))
        weight = np.array([r.distribution[c] for c in (0, 1) for r in rows])
        keep = weight > 0
        model = LogisticRegression(C=0.01, max_iter=1000)
        model.fit(np.tile(z, (2, 1))[keep], y[keep], sample_weight=weight[keep])
        for item in {i for i, whose in label_fold.asked if whose == name}:
            row = (features[item][varies] - centre) / scale
            expected = model.predict_proba(row[None])[0]
            np.testing.assert_allclose(found[item, name], expected, atol=2e-3)


def test_a_probe_with_one_class_of_feedback_says_that_class(label_fold):
    rows = tuple(r.model_copy(update={"distribution": (0.0, 1.0)}) for r in label_fold.feedback)
    for p in probes.probe_residuals(replace(label_fold, feedback=rows)).values():
        np.testing.assert_array_equal(p, [0, 1])


def test_a_probe_chooses_its_strength_within_the_feedback():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(40, 30))
    noise = np.eye(2)[rng.integers(2, size=40)]
    clear = np.eye(2)[(inputs[:, 0] > 0).astype(int)]
    assert probes._best_strength(inputs, noise, 0) < probes._best_strength(3 * inputs, clear, 0)
    parts = probes._parts(clear.argmax(1), 0)
    for label in (0, 1):
        sizes = Counter(parts[clear.argmax(1) == label])
        assert max(sizes.values()) - min(sizes.values()) <= 1
