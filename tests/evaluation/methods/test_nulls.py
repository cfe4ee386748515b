from collections import Counter
from dataclasses import replace

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from saepd.branches.run import score_continuations
from saepd.evaluation.methods import nulls


def own(fold, perspective):
    return [row for row in fold.feedback if row.perspective == perspective]


def scores(fold, item_id):
    item = fold.task.by_id[item_id]
    prompt = f"A survey asked: {item.prompt}\nMost people answered:"
    [(found, _)] = score_continuations(fold.model, [prompt], [item.options], [])
    return found[0].double().numpy()


def minimised(loss, n):
    return minimize(loss, np.zeros(n), method="BFGS", options={"gtol": 1e-7}).x


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
