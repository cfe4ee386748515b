import numpy as np
import pytest
from scipy.special import softmax

from saepd.common.errors import InputError
from saepd.fit.config import ScaleConfig
from saepd.fit.scales import Row, fit_scales, strongest

QUICK = ScaleConfig(n_latents=(2, 6), shared=(0.001, 1.0), own=(0.005, 1.0))


def feedback(n=60, seed=0, own=0.0):
    """Answers that two of six candidates explain, the second with opposite signs by perspective."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(n):
        effects = rng.normal(size=(3, 6))
        effects -= effects.mean(0)
        readout = np.hstack([rng.normal(size=(3, 1)), np.eye(3)])
        for name, sign in (("a", 1.0), ("b", -1.0)):
            scores = readout[:, 0] + 2 * effects[:, 4] + sign * own * effects[:, 1]
            rows.append(Row(f"q{number}", name, readout, effects, softmax(scores)))
    return rows


def test_shared_scales_are_found_among_the_candidates():
    rows = feedback()
    fitted = fit_scales(rows, QUICK)
    scales = dict(zip(fitted.units.tolist(), fitted.values["a"], strict=True))
    assert scales[4] == pytest.approx(2, abs=0.2)
    assert all(abs(value) < 0.2 for unit, value in scales.items() if unit != 4)
    assert fitted.readout["a"][0] == pytest.approx(1, abs=0.1)


def test_own_scales_tell_perspectives_apart():
    fitted = fit_scales(feedback(own=1.0), QUICK)
    index = fitted.units.tolist().index(1)
    assert fitted.values["a"][index] == pytest.approx(1, abs=0.3)
    assert fitted.values["b"][index] == pytest.approx(-1, abs=0.3)


def test_the_strongest_candidate_is_the_one_that_answers_follow():
    rows = feedback()
    ranked = strongest(rows, np.array([1.0, 0, 0, 0]))
    assert ranked[0] == 4
    assert sorted(ranked.tolist()) == list(range(6))


def test_the_setting_of_least_validated_loss_is_taken():
    fitted = fit_scales(feedback(), QUICK)
    assert min(fitted.loss, key=fitted.loss.get).startswith(f"k={len(fitted.units)}, shared=0.001")
    # Four settings of the shared part, two of the own part.
    assert len(fitted.loss) == 6


def test_too_few_questions_are_refused():
    with pytest.raises(InputError, match="4 questions of feedback are too few for 5 folds"):
        fit_scales(feedback(4), QUICK)
