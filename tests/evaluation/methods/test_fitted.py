from dataclasses import replace

import numpy as np
import pytest

from saepd.evaluation.methods import fitted, gated
from saepd.fit.config import FitConfig, LearningConfig
from saepd.fit.learn import learn_directions
from saepd.models.wording import ReadoutConfig
from saepd.readout.options import read_options

FEW = LearningConfig(
    n_latents=4, shared=(0.001,), own=(0.02,), biases=(0.01,), own_readout=(0.1,), anyway=True
)


@pytest.fixture
def fold(opinion_fold, monkeypatch):
    monkeypatch.setattr(fitted, "LearningConfig", lambda: FEW)
    return replace(opinion_fold)


@pytest.mark.parametrize("n_sites", [1, 2])
def test_what_is_measured_is_what_a_user_fits_and_reads(fold, random_sae, monkeypatch, n_sites):
    learning, saes = replace(FEW, sites="all"), (fold.sae,)
    if n_sites == 2:
        saes += (random_sae(d_sae=24, hook_name="blocks.2.hook_resid_post", seed=1),)
    monkeypatch.setattr(fitted, "LearningConfig", lambda: learning)
    monkeypatch.setattr(fold.cache, "saes", saes)
    config = FitConfig(readout=ReadoutConfig(template=fold.task.wording.plain))
    fit = learn_directions(fold.model, saes, fold.feedback, config, learning)
    assert [len(direction.parts) for direction in fit.directions] == [n_sites] * 2
    found = fitted.predict_as_fit(fold)
    assert found.keys() == set(fold.asked)
    items = [fold.task.by_id[id_] for id_, _ in fold.asked]
    read = read_options(fold.model, items, fit.directions, config.readout)
    names = [direction.perspective for direction in fit.directions]
    for (id_, name), row in zip(fold.asked, read, strict=True):
        p = row.log_probs()[1 + names.index(name)].exp()
        np.testing.assert_allclose(found[id_, name], p, atol=1e-4)


@pytest.mark.parametrize("gate", ["always", "never"])
def test_gates_make_the_difference_between_what_is_fitted_and_what_fit_writes(
    fold, monkeypatch, gate
):
    monkeypatch.setattr(fitted, "LearningConfig", lambda: replace(FEW, gate=gate))
    as_fit, plain = fitted.predict_as_fit(fold), fitted.predict_fitted(fold, "latents")
    gap = max(np.abs(as_fit[pair] - plain[pair]).max() for pair in fold.asked)
    assert (gap > 1e-4) == (gate == "always")


def test_controls_write_something_else(fold):
    real = fitted.fitted_directions(fold, "latents")
    for control in ("random", "vector"):
        found = fitted.fitted_directions(fold, control)
        assert found.keys() == real.keys()
        for name, direction in found.items():
            assert (
                direction.constant - real[name].constant
            ).norm() > 1e-3 * direction.constant.norm()


def test_gates_read_the_item_itself(label_fold):
    found, shuffled = gated.gated_directions(label_fold), gated.gated_shuffled(label_fold)
    assert found.keys() == shuffled.keys() == set(label_fold.asked)
    # North calls "aaa" short and "zzz" not; what is held out is told apart by its own text.
    probability = {
        id_: p[1] for (id_, name), p in found.items() if name == "north" and id_ in label_fold.test
    }
    short = [p for id_, p in probability.items() if int(id_[1:]) % 3]
    other = [p for id_, p in probability.items() if not int(id_[1:]) % 3]
    assert min(short) > max(other)
