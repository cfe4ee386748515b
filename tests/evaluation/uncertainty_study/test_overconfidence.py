import numpy as np
import pytest
from uncertainty_study.overconfidence import N_BINS, calibration_rows

from saepd.metrics import weighted
from saepd.metrics.calibration import brier, expected_calibration_error, nll
from saepd.metrics.intervals import draw_weights


def drawn(seed, n=60, options=3):
    rng = np.random.default_rng(seed)
    predicted = rng.dirichlet(np.full(options, 0.7), size=n)
    return list(predicted), rng.integers(options, size=n).tolist()


QUESTIONS = [str(i) for i in range(60)]


def test_every_measure_is_that_of_its_module():
    sure, labels = drawn(0)
    flat = [(p + 1 / 3) / 2 for p in sure]
    found = calibration_rows(
        {"sure": sure, "flat": flat}, labels, QUESTIONS, {"flat": ("sure",)}, seed=0
    )
    for row, predicted in zip(found, (sure, flat), strict=True):
        confidence = np.mean([p.max() for p in predicted])
        accuracy = np.mean([p.argmax() == y for p, y in zip(predicted, labels, strict=True)])
        expected = {
            "confidence": confidence,
            "accuracy": accuracy,
            "overconfidence": confidence - accuracy,
            "ece": expected_calibration_error(predicted, labels, n_bins=N_BINS),
            "ece_equal_mass": expected_calibration_error(
                predicted, labels, n_bins=N_BINS, binning="equal-mass"
            ),
            "brier": brier(predicted, labels).mean(),
            "nll": nll(predicted, labels).mean(),
        }
        for name, value in expected.items():
            estimate, low, high = row[name]
            assert estimate == pytest.approx(value, abs=1e-4), name
            assert low <= high
    difference = found[1]["minus"]["sure"]["overconfidence"]
    assert difference[0] == pytest.approx(
        found[1]["overconfidence"][0] - found[0]["overconfidence"][0], abs=2e-4
    )
    # Flattened on every question: the paired interval says so.
    assert difference[2] < 0
    assert found[0]["minus"] == {}


def test_ece_of_a_draw_is_that_of_the_questions_drawn():
    predicted, labels = drawn(1)
    confidence = np.array([p.max() for p in predicted])
    right = np.array([float(p.argmax() == y) for p, y in zip(predicted, labels, strict=True)])
    bins = np.minimum((confidence * 5).astype(int), 4)
    weights = draw_weights(QUESTIONS, 0, 20)
    found = weighted.expected_calibration_error(bins, right - confidence, weights)
    for weight, ece in zip(weights, found, strict=True):
        rows = np.repeat(np.arange(60), weight.astype(int))
        parts = [rows[bins[rows] == b] for b in range(5)]
        by_hand = sum(
            len(part) / 60 * abs(right[part].mean() - confidence[part].mean())
            for part in parts
            if len(part)
        )
        assert ece == pytest.approx(by_hand)


@pytest.mark.parametrize("n_bins", [5, 15])
def test_ece_is_torchmetrics(n_bins):
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchmetrics.functional.classification")
    for seed in range(5):
        predicted, labels = drawn(seed)
        theirs = functional.multiclass_calibration_error(
            torch.tensor(np.array(predicted)),
            torch.tensor(labels),
            num_classes=3,
            n_bins=n_bins,
            norm="l1",
        )
        ours = expected_calibration_error(predicted, labels, n_bins=n_bins)
        assert ours == pytest.approx(float(theirs), abs=1e-6)


def test_a_label_that_was_thought_impossible_leaves_the_mean_finite():
    [row] = calibration_rows(
        {"sure": [np.array([1.0, 0.0])] * 4}, [1, 0, 0, 0], ["a", "b", "c", "d"], {}, seed=0
    )
    assert row["nll"][0] == pytest.approx(-np.log(1e-6) / 4, abs=1e-3)
