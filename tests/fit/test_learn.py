from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax
from tiny import SITE

from saepd.branches.gradients import option_gradients
from saepd.common.errors import InputError
from saepd.directions.saving import load_from_disk, save_to_disk
from saepd.feedback.schema import Feedback
from saepd.fit.config import DirectionConfig, FitConfig, ScaleConfig
from saepd.fit.learn import (
    Seen,
    decoder,
    fit_all,
    learn_directions,
    scale_rows,
)
from saepd.fit.learned import read_learned
from saepd.fit.scales import fit_scales
from saepd.models.wording import ReadoutConfig

QUICK = ScaleConfig(n_latents=(4,), shared=(0.001,), own=(0.005, 0.02))
OPTIONS = ("yes", "no", "not sure")


def rows(n=12):
    """Two perspectives of one view each, on as many questions."""
    return [
        Feedback(id=f"{name}{i}", perspective=name, prompt=f"Is {i} so?", options=OPTIONS, answer=a)
        for i in range(n)
        for name, a in (("a", "yes"), ("b", "no"))
    ]


def test_learned_directions_answer_as_their_people_did(llama, random_sae):
    sae = random_sae()
    told = []
    fit = learn_directions(
        llama, sae, rows(), None, QUICK, progress=lambda *step: told.append(step)
    )
    assert ("gradients of questions", 12, 12) in told
    assert told[-1] == ("done", 1, 1)
    assert [d.perspective for d in fit.directions] == ["a", "b"]
    item = rows()[0].as_item()
    [read] = read_learned(llama, [item], fit.directions)
    assert read.scores.exp().sum(-1).numpy() == pytest.approx(1, abs=1e-5)
    assert read.scores[1].argmax() == 0
    assert read.scores[2].argmax() == 1
    for direction in fit.directions:
        vector = fit.learned.vectors[direction.perspective]
        np.testing.assert_allclose(direction.constant, vector, rtol=1e-4, atol=1e-5)


def test_a_learned_fit_is_shown_in_a_line(llama, random_sae):
    shown = repr(learn_directions(llama, random_sae(), rows(), None, QUICK))
    assert shown.startswith("LearnedFit('a', 'b'; scales of ")
    assert len(shown) < 150


def test_an_option_that_cannot_be_is_refused(llama, random_sae, monkeypatch):
    def broken(*args, **kwargs):
        found = option_gradients(*args, **kwargs)
        found[0].log_probs[0] = -float("inf")
        return found

    monkeypatch.setattr("saepd.fit.learn.option_gradients", broken)
    with pytest.raises(InputError, match="gives an option no probability"):
        learn_directions(llama, random_sae(), rows(), None, QUICK)


def test_people_of_two_views_are_foretold_better_with_directions_of_their_own():
    rng = np.random.default_rng(0)
    seen = []
    for number in range(60):
        gradients = rng.normal(size=(3, 4))
        scores = rng.normal(size=3)
        for name, sign in (("a", 2.0), ("b", -2.0)):
            target = softmax(scores + sign * gradients[:, 1])
            seen.append(Seen(f"q{number}", name, scores, gradients, target))
    found = fit_scales(scale_rows(seen, np.eye(4)), replace(QUICK, shared=(0.001, 1.0)))
    assert min(found.loss.values()) < found.unsteered - 0.1


def test_a_model_that_is_right_already_gains_nothing():
    rng = np.random.default_rng(0)
    seen = []
    for number in range(40):
        scores = rng.normal(size=3)
        gradients = rng.normal(size=(3, 4))
        seen.append(Seen(f"q{number}", "a", scores, gradients, softmax(scores)))
    found = fit_scales(scale_rows(seen, np.eye(4)), QUICK)
    assert found.unsteered <= min(found.loss.values()) + 1e-3


def test_all_latents_at_once_are_the_ridge_over_every_latent(random_sae):
    rng = np.random.default_rng(0)
    units = decoder(random_sae(), np.arange(48))
    seen = [
        Seen(
            f"q{i}",
            name,
            rng.normal(size=3),
            rng.normal(size=(3, units.shape[1])),
            np.eye(3)[i % 3],
        )
        for i in range(20)
        for name in "ab"
    ]
    # Of one question both perspectives have the same scores and gradients.
    seen = [
        row._replace(scores=first.scores, gradients=first.gradients)
        for row, first in zip(seen, [seen[i - i % 2] for i in range(len(seen))], strict=True)
    ]
    directly = fit_scales(scale_rows(seen, units), replace(QUICK, n_latents=(len(units),)))
    rotated = fit_all(seen, units, QUICK)
    for name, values in directly.values.items():
        np.testing.assert_allclose(rotated.values[name] @ units, values @ units, atol=1e-4)


def test_learned_directions_are_kept_on_disk(llama, random_sae, tmp_path):
    sae = random_sae()
    fit = learn_directions(llama, sae, rows(), None, QUICK)
    save_to_disk(fit.directions, tmp_path)
    for one, other in zip(fit.directions, load_from_disk(tmp_path, llama, sae), strict=True):
        np.testing.assert_array_equal(one.constant, other.constant)
        assert other.lineage["learned"]["unsteered_loss"] == fit.learned.scales.unsteered
        assert other.hook_name == SITE


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (FitConfig(readout=ReadoutConfig("letter")), "leave the readout at text"),
        (FitConfig(readout=ReadoutConfig(length_normalised=True)), "not normalised by length"),
        (FitConfig(direction=DirectionConfig(mode="clamp")), "leave out mode 'clamp'"),
    ],
)
def test_what_cannot_be_learned_is_refused(llama, random_sae, config, said):
    with pytest.raises(InputError, match=said):
        learn_directions(llama, random_sae(), rows(), config, QUICK)


def test_an_sae_that_normalises_is_refused(llama, random_sae):
    sae = random_sae(normalize_activations="layer_norm")
    with pytest.raises(InputError, match=r"normalises activations \(layer_norm\)"):
        learn_directions(llama, sae, rows(), None, QUICK)


def test_rows_that_cannot_be_learned_from_are_refused(llama, random_sae):
    sae = random_sae()
    with pytest.raises(InputError, match="2 questions of feedback are too few for 5 folds"):
        learn_directions(llama, sae, rows(2), None, QUICK)
    free = Feedback(id="x", perspective="a", prompt="Why?", options=(), answer="so")
    with pytest.raises(InputError, match="'x' has no answer among options"):
        learn_directions(llama, sae, [*rows(), free], None, QUICK)
    same = rows()[0].model_copy(update={"id": "y", "prompt": "Otherwise?"})
    with pytest.raises(InputError, match=r"'y' asks item .* in other words"):
        learn_directions(llama, sae, [*rows(), same], None, QUICK)
