import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from saepd.branches.run import score_continuations
from saepd.common.errors import InputError
from saepd.evaluation.methods import nulls, probes
from saepd.evaluation.methods.registry import METHODS, methods_of

TEXT = [n for n, m in METHODS.items() if not m.for_labels and "letters" not in n]


def own(fold, perspective):
    return [row for row in fold.feedback if row.perspective == perspective]


def scores(fold, item_id):
    item = fold.task.by_id[item_id]
    prompt = f"A survey asked: {item.prompt}\nMost people answered:"
    [(found, _)] = score_continuations(fold.model, [prompt], [item.options], [])
    return found[0].double().numpy()


def minimised(loss, n):
    return minimize(loss, np.zeros(n), method="BFGS", options={"gtol": 1e-7}).x


@pytest.mark.parametrize("name", TEXT)
def test_every_method_answers_exactly_what_is_asked(opinion_fold, name):
    found = METHODS[name].predict(opinion_fold)
    assert set(found) == set(opinion_fold.asked)
    for (item, _), p in found.items():
        assert p.shape == (len(opinion_fold.task.by_id[item].options),)
        assert (p >= 0).all()
        assert p.sum() == pytest.approx(1)


def test_means_are_of_the_feedback_with_as_many_options(opinion_fold):
    one, pooled = nulls.train_mean(opinion_fold), nulls.train_mean_pooled(opinion_fold)
    for (item, name), p in one.items():
        n = len(opinion_fold.task.by_id[item].options)
        same = [r for r in opinion_fold.feedback if len(r.options) == n]
        np.testing.assert_allclose(pooled[item, name], np.mean([r.distribution for r in same], 0))
        mine = [r.distribution for r in same if r.perspective == name]
        np.testing.assert_allclose(p, np.mean(mine, 0))


def test_zero_shot_and_calibration_are_the_models_own(opinion_fold):
    plain, calibrated = nulls.zero_shot(opinion_fold), nulls.contextual_calibration(opinion_fold)
    asked = {row.item: row.options for row in opinion_fold.feedback}
    counts = Counter(asked.values())
    for (item, name), p in plain.items():
        np.testing.assert_allclose(p, softmax(scores(opinion_fold, item)), atol=1e-4)
        options = opinion_fold.task.by_id[item].options
        assert counts[options] > 1
        mean = np.mean([scores(opinion_fold, i) for i, o in asked.items() if o == options], 0)
        expected = softmax(scores(opinion_fold, item) - mean)
        np.testing.assert_allclose(calibrated[item, name], expected, atol=1e-4)


def test_the_temperature_makes_own_feedback_likeliest(opinion_fold):
    found = nulls.temperature(opinion_fold)
    for name in opinion_fold.perspectives:
        rows = own(opinion_fold, name)
        held = [(scores(opinion_fold, r.item), np.array(r.distribution)) for r in rows]

        def loss(t, held=held):
            return -sum(y @ log_softmax(s / t) for s, y in held)

        best = min(np.geomspace(0.05, 200, 4000), key=loss)
        for item in {i for i, whose in opinion_fold.asked if whose == name}:
            expected = softmax(scores(opinion_fold, item) / best)
            np.testing.assert_allclose(found[item, name], expected, atol=0.005)


def biased(weights, s):
    """By hand for two or three options: 1/temperature, three positions, the last."""
    bias = weights[1 : 1 + len(s)].copy()
    bias[-1] += weights[4]
    return weights[0] * (s - s.mean()) + bias


def penalised(fold, rows, ridge, start=None):
    held = [(biased, scores(fold, r.item), np.array(r.distribution)) for r in rows]

    def loss(w):
        fit = -np.mean([y @ log_softmax(f(w, s)) for f, s, y in held])
        away = w[1:] if start is None else w - start
        return fit + ridge * away @ away

    return minimised(loss, 5)


def test_position_biases_are_the_penalised_optimum(opinion_fold):
    fold = opinion_fold
    pooled = penalised(fold, fold.feedback, nulls.POOLED_RIDGE)
    expected = {
        nulls.position_bias: lambda name: penalised(fold, own(fold, name), nulls.OWN_RIDGE),
        nulls.position_bias_pooled: lambda _: pooled,
        nulls.position_bias_pooled_and_own: lambda name: penalised(
            fold, own(fold, name), nulls.OFFSET_RIDGE, pooled
        ),
    }
    for method, fit in expected.items():
        found = method(fold)
        weights = {name: fit(name) for name in fold.perspectives}
        for item, name in fold.asked:
            by_hand = softmax(biased(weights[name], scores(fold, item)))
            np.testing.assert_allclose(found[item, name], by_hand, atol=2e-3)


def test_a_persona_prompt_names_the_perspective(opinion_fold):
    names = {"north": "the North"}
    wording = replace(opinion_fold.task.wording, names=names)
    found = nulls.zero_shot_persona(
        replace(opinion_fold, task=replace(opinion_fold.task, wording=wording))
    )
    assert set(found) == set(opinion_fold.asked)
    for (id_, name), p in found.items():
        item = opinion_fold.task.by_id[id_]
        prompt = f"A survey of {names.get(name, name)} asked: {item.prompt}\nMost of them answered:"
        [(expected, _)] = score_continuations(opinion_fold.model, [prompt], [item.options], [])
        np.testing.assert_allclose(p, softmax(expected[0].double().numpy()), atol=1e-4)


@pytest.mark.parametrize("method", [probes.probe_residuals, probes.probe_latents])
def test_probes_are_regressions_on_standardised_features(label_fold, monkeypatch, method):
    monkeypatch.setattr(probes, "_STRENGTHS", (0.01,))
    cache = label_fold.cache
    features = cache.residuals if method is probes.probe_residuals else cache.latents
    found = method(label_fold)
    assert set(found) == set(label_fold.asked)
    for name in label_fold.perspectives:
        rows = own(label_fold, name)
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


def test_ids_are_words_for_a_command_line_and_a_file_name():
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", id_) for id_ in METHODS)
    assert len({method.title for method in METHODS.values()}) == len(METHODS)


def test_methods_are_those_that_the_task_allows(opinions, labels):
    assert set(methods_of(labels, ["all"])) == set(METHODS)
    for_labels = {n for n in METHODS if n.startswith(("linear-probe", "gated"))}
    assert for_labels == set(METHODS) - set(methods_of(opinions, ["all"]))
    costly = {n for n, m in METHODS.items() if m.costly}
    assert set(methods_of(opinions)) == set(methods_of(opinions, ["all"])) - costly
    assert "merged-pluralistic" in costly and "fitted-scales-random-latents" not in costly
    assert all("\n" not in m.description and m.description for m in METHODS.values())
    with pytest.raises(InputError, match="no methods: name at least one of uniform"):
        methods_of(opinions, [])
    with pytest.raises(
        InputError, match=r"unknown method 'temprature': did you mean 'temperature'"
    ):
        methods_of(opinions, ["temprature"])
    with pytest.raises(InputError, match="linear-probe-latents needs a positive class"):
        methods_of(opinions, ["linear-probe-latents"])
