from dataclasses import replace

import numpy as np
from scipy.special import softmax

from saepd.evaluation.methods import fitted, gated
from saepd.fit.config import ScaleConfig
from saepd.fit.learn import Learned, centred_gradients, decoder, scale_rows
from saepd.fit.scales import fit_scales
from saepd.readout.softmax import option_features


def test_steered_answers_are_what_the_linear_fit_foretells(opinion_fold, monkeypatch):
    fold = opinion_fold
    units = decoder(fold.sae, np.arange(fold.sae.cfg.d_sae))
    found = fit_scales(
        scale_rows(fitted._seen(fold), units), replace(ScaleConfig(), n_latents=(8,))
    )
    learned = Learned(found, units, np.arange(len(units)))
    run = fitted.Run(learned, fitted._moved(fold, {"one": learned})["one"])
    monkeypatch.setattr(fitted, "runs", lambda _: {"one": run})
    got = fitted.predict_fitted(fold, "one")
    moves = []
    for (id_, name), p in got.items():
        effects = centred_gradients(fold.cache.gradients[id_]) @ units[found.units].T
        features = option_features(fold.cache.text_scores[id_], len(found.readout[name]) - 2)
        unsteered = features @ found.readout[name]
        np.testing.assert_allclose(p, softmax(unsteered + effects @ found.values[name]), atol=0.05)
        moves.append(np.abs(p - softmax(unsteered)).max())
    assert max(moves) > 0.05


def test_controls_are_given_something_else(opinion_fold, monkeypatch):
    few = replace(ScaleConfig(), n_latents=(3, 6))
    monkeypatch.setattr(fitted, "ScaleConfig", lambda: few)
    fold = replace(opinion_fold)
    real = fitted.predict_fitted(fold, "latents")
    for control in ("random", "shuffled", "vector"):
        found = fitted.predict_fitted(fold, control)
        assert found.keys() == real.keys()
        assert any(np.abs(found[key] - real[key]).max() > 1e-4 for key in real)


def test_a_learned_direction_writes_its_vector(opinion_fold):
    for kind in ("latents", "vector"):
        learned = fitted.runs(opinion_fold)[kind].learned
        directions = fitted.fitted_directions(opinion_fold, kind)
        assert list(directions) == list(opinion_fold.perspectives)
        for name, direction in directions.items():
            np.testing.assert_allclose(direction.constant, learned.vectors[name], atol=1e-4)


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
