from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import SITE

from saepd.common.errors import InputError
from saepd.directions.edits import AddVector, EditLatents
from saepd.directions.lineage import read_lineage
from saepd.directions.saving import load_from_disk, save_to_disk
from saepd.feedback.schema import Feedback
from saepd.fit import kinds
from saepd.fit.asked import ask
from saepd.fit.config import DirectionConfig, FitConfig, LearningConfig
from saepd.fit.learn import learn_directions
from saepd.models.wording import ReadoutConfig
from saepd.readout.options import read_options

QUICK = LearningConfig(
    n_latents=4, shared=(0.001,), own=(0.005, 0.02), biases=(0.01,), own_readout=(0.1,)
)
ANYWAY = LearningConfig(
    n_latents=4,
    shared=(0.001,),
    own=(0.005, 0.02),
    biases=(0.01,),
    own_readout=(1.0,),
    max_dose=3.0,
    anyway=True,
    gate="never",
)
OPTIONS = ("yes", "no", "not sure")


def rows(n=12):
    """Two perspectives of one view each, on as many questions; options are in turning order."""
    return [
        Feedback(
            id=f"{name}{i}",
            perspective=name,
            prompt=f"Is {i} so?",
            options=OPTIONS[i % 3 :] + OPTIONS[: i % 3],
            answer=answer,
        )
        for i in range(n)
        for name, answer in (("a", "yes"), ("b", "no"))
    ]


@pytest.fixture(scope="module")
def sae(random_sae):
    return random_sae()


@pytest.fixture(scope="module")
def fit(llama, sae):
    told = []
    found = learn_directions(
        llama, sae, rows(), None, ANYWAY, progress=lambda *step: told.append(step)
    )
    assert ("gradients of questions", 12, 12) in told
    assert told[-1] == ("done", 1, 1)
    return found


def test_learned_directions_answer_as_their_people_did(llama, fit):
    assert [d.perspective for d in fit.directions] == ["a", "b"]
    item = rows()[0].as_item()
    [read] = read_options(llama, [item], fit.directions)
    probabilities = read.log_probs().exp()
    assert probabilities[1].argmax() == item.options.index("yes")
    assert probabilities[2].argmax() == item.options.index("no")
    for direction in fit.directions:
        vector = fit.learned.solutions["latents"].vectors[direction.perspective]
        np.testing.assert_allclose(direction.constant, vector, rtol=1e-4, atol=1e-5)
        assert 0 < len(direction.edit.latents) <= 4


def test_what_the_fit_foretells_is_what_a_saved_folder_answers(llama, sae, fit, tmp_path):
    save_to_disk(fit.directions, tmp_path, verdict=fit.verdict.as_json())
    loaded = load_from_disk(tmp_path, llama, sae)
    solution, asked = fit.learned.solutions["latents"], fit.learned.asked
    [moved] = asked.moved(asked.pairs(solution.vectors))
    features = asked.readout_features()
    items = {row.item: row.as_item() for row in rows()}
    for (id_, item), read in zip(
        items.items(), read_options(llama, list(items.values()), loaded), strict=True
    ):
        assert item.id == id_
        for index, name in enumerate("ab", 1):
            logits = features[id_] @ solution.readout[name] + moved[id_, name]
            p = np.exp(logits - np.logaddexp.reduce(logits))
            np.testing.assert_allclose(read.log_probs()[index].exp(), p, atol=1e-4)


@pytest.mark.parametrize("gate", ["never", "always"])
@pytest.mark.parametrize("n_latents", [4, 0])
def test_what_is_learned_at_several_sites_is_what_a_saved_folder_answers(
    llama, sae, random_sae, tmp_path, gate, n_latents
):
    above = random_sae(hook_name="blocks.2.hook_resid_post", seed=1)
    learning = replace(ANYWAY, gate=gate, n_latents=n_latents, sites="all")
    # The higher one first: the order in which they are given does not matter.
    fit = learn_directions(llama, [above, sae], rows(), None, learning)
    kind = "latents" if n_latents else "vector"
    solution, asked = fit.learned.solutions[kind], fit.learned.asked
    width = asked.width // 2
    written = 0
    for direction in fit.directions:
        assert [part.hook_name for part in direction.parts] == [SITE, above.cfg.metadata.hook_name]
        vector = solution.vectors[direction.perspective]
        for part, own in zip(direction.parts, np.split(vector, 2), strict=True):
            np.testing.assert_allclose(part.constant, own, rtol=1e-4, atol=1e-5)
            assert own.any() == bool(part.constant.any())
            if isinstance(part.edit, EditLatents):
                written += len(part.edit.latents)
    assert vector.shape == (2 * width,) and written <= 2 * n_latents
    save_to_disk(fit.directions, tmp_path)
    loaded = load_from_disk(tmp_path, llama, [sae, above])
    items = [row.as_item() for row in rows()[::2]]
    apart = [list(direction.parts) for direction in fit.directions]
    for read, again, branches in zip(
        read_options(llama, items, loaded),
        read_options(llama, items, fit.directions),
        read_options(llama, items, apart, raw=True),
        strict=True,
    ):
        assert torch.equal(read.scores, again.scores)
        assert read.branches == ("base", "a", "b")
        assert torch.isfinite(branches.scores).all()
    if gate == "never":
        [moved] = asked.moved(asked.pairs(solution.vectors))
        features = asked.readout_features()
        for item, read in zip(items, read_options(llama, items, loaded), strict=True):
            for index, name in enumerate("ab", 1):
                logits = features[item.id] @ solution.readout[name] + moved[item.id, name]
                p = np.exp(logits - np.logaddexp.reduce(logits))
                np.testing.assert_allclose(read.log_probs()[index].exp(), p, atol=1e-4)


def test_one_site_is_enough_where_it_alone_foretells_better(llama, sae, random_sae):
    above = random_sae(hook_name="blocks.2.hook_resid_post", seed=1)
    fit = learn_directions(llama, [sae, above], rows(), None, replace(ANYWAY, gate="always"))
    alone = learn_directions(llama, above, rows(), None, replace(ANYWAY, gate="always"))
    for one, other in zip(fit.directions, alone.directions, strict=True):
        assert len(one.parts) == 1 and one.hook_name == other.hook_name
        torch.testing.assert_close(one.constant, other.constant, rtol=1e-4, atol=1e-4)
        assert one.gate.hook_name == other.gate.hook_name == "blocks.2.hook_resid_post"
        assert one.lineage["sae_fingerprint"] == other.lineage["sae_fingerprint"]


def test_gradients_at_several_sites_are_those_of_each(llama):
    places = (SITE, "blocks.2.hook_resid_post")
    quiet = lambda *_: None  # noqa: E731
    both = ask(llama, rows(), places, ReadoutConfig(), "answer", quiet)
    around = both.effects(both.everywhere(np.zeros(both.width)))
    for site, place in enumerate(places):
        alone = ask(llama, rows(), [place], ReadoutConfig(), "answer", quiet)
        for pair, effect in alone.effects(alone.everywhere(np.zeros(alone.width))).items():
            own = np.split(around[pair].gradients, 2, axis=1)[site]
            np.testing.assert_allclose(own, effect.gradients, atol=1e-5)


def test_two_saes_of_one_site_are_refused(llama, sae, random_sae):
    with pytest.raises(InputError, match="two SAEs are of the site"):
        learn_directions(llama, [sae, random_sae(seed=1)], rows(), None, QUICK)
    with pytest.raises(InputError, match="there is no SAE to learn with"):
        learn_directions(llama, [], rows(), None, QUICK)


def test_the_verdict_is_kept_with_the_directions(fit, tmp_path):
    save_to_disk(fit.directions, tmp_path, verdict=fit.verdict.as_json())
    told = read_lineage(tmp_path).verdict
    assert told["sentence"] == str(fit.verdict)
    assert set(told["by_perspective"]) == {"a", "b"}
    assert set(told["controls"]) == {
        "a dense vector",
        "as many random latents",
        "latents chosen for shuffled perspectives",
        "another perspective's direction",
    }
    assert told["costs"]["a"]["dose"] <= 3.0 + 1e-6
    assert told["n_answers"] == {"a": 12, "b": 12}
    assert told["n_controlled"] == 24


def test_controls_may_run_on_some_answers_only(llama, sae, fit, monkeypatch):
    monkeypatch.setattr(kinds, "_CONTROLLED", 10)
    found = learn_directions(llama, sae, rows(), None, ANYWAY)
    whole, some = fit.learned.losses, found.learned.losses
    for name in ("vector", "random", "shuffled", "another's"):
        ran = np.isfinite(some[name])
        assert ran.sum() == found.verdict.n_controlled == 10
        np.testing.assert_allclose(some[name][ran], whole[name][ran], atol=1e-4)
    np.testing.assert_allclose(some["latents"], whole["latents"], atol=1e-4)
    assert found.verdict.supported
    assert found.verdict.gain == pytest.approx(fit.verdict.gain, abs=1e-4)
    controls = found.verdict.controls
    assert controls["a dense vector"].estimate == pytest.approx(
        np.nanmean(found.learned.unsteered - some["vector"])
    )
    on_these = np.isfinite(some["random"])
    assert controls["the directions on the same 10 answers"].estimate == pytest.approx(
        (found.learned.unsteered - some["latents"])[on_these].mean()
    )
    assert " on 10 of the answers" in str(found.verdict)
    assert "of the answers" not in str(fit.verdict)


def test_steering_of_two_views_is_supported_and_anothers_direction_is_not(fit):
    gain = fit.verdict.gain
    assert fit.verdict.supported
    assert gain.estimate > 0.05
    assert fit.verdict.controls["another perspective's direction"].estimate < gain.estimate - 0.05
    assert str(fit.verdict).startswith("Steering helps: +")
    assert repr(fit).startswith("LearnedFit('a', 'b'; Steering helps")


def test_where_answers_are_chance_nothing_is_written(llama, sae):
    rng = np.random.default_rng(1)
    random = [row.model_copy(update={"answer": str(rng.choice(row.options))}) for row in rows(20)]
    fit = learn_directions(llama, sae, random, None, QUICK)
    assert not fit.verdict.supported
    assert not fit.verdict.steers
    assert "does not support steering, so nothing is written" in str(fit.verdict)
    for direction in fit.directions:
        assert isinstance(direction.edit, AddVector)
        assert not direction.edit.vector.any()
        assert direction.readout is not None


def test_without_latents_a_dense_vector_is_learned(llama, sae):
    dense = LearningConfig(
        n_latents=0, shared=(0.001,), own=(0.02,), biases=(0.01,), own_readout=(0.1,), anyway=True
    )
    fit = learn_directions(llama, sae, rows(), None, dense)
    assert all(isinstance(d.edit, AddVector) and d.edit.vector.any() for d in fit.directions)
    assert fit.verdict.n_latents == 0


def test_no_more_is_written_than_the_dose_allows(llama, sae):
    little = LearningConfig(
        n_latents=4,
        shared=(0.0001,),
        own=(0.001,),
        biases=(0.01,),
        own_readout=(0.1,),
        max_dose=0.05,
        anyway=True,
    )
    fit = learn_directions(llama, sae, rows(), None, little)
    doses = [cost.dose for cost in fit.verdict.costs.values()]
    assert max(doses) == pytest.approx(0.05, rel=0.01)
    assert all(isinstance(d.edit, EditLatents) for d in fit.directions)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (FitConfig(readout=ReadoutConfig("letter")), "leave the readout at text"),
        (FitConfig(readout=ReadoutConfig(length_normalised=True)), "not normalised by length"),
        (FitConfig(direction=DirectionConfig(mode="clamp")), "leave out mode 'clamp'"),
    ],
)
def test_what_cannot_be_learned_is_refused(llama, sae, config, said):
    with pytest.raises(InputError, match=said):
        learn_directions(llama, sae, rows(), config, QUICK)


def test_an_sae_that_normalises_is_refused(llama, random_sae):
    normalising = random_sae(normalize_activations="layer_norm")
    with pytest.raises(InputError, match=r"normalises activations \(layer_norm\)"):
        learn_directions(llama, normalising, rows(), None, QUICK)


def test_rows_that_cannot_be_learned_from_are_refused(llama, sae):
    with pytest.raises(InputError, match="at least 5 questions, not on 2"):
        learn_directions(llama, sae, rows(2), None, QUICK)
    free = Feedback(id="x", perspective="a", prompt="Why?", options=(), answer="so")
    with pytest.raises(InputError, match=r"'x' has no options .*method differences"):
        learn_directions(llama, sae, [*rows(), free], None, QUICK)
    same = rows()[0].model_copy(update={"id": "y", "prompt": "Otherwise?"})
    with pytest.raises(InputError, match=r"'y' asks item .* in other words"):
        learn_directions(llama, sae, [*rows(), same], None, QUICK)


def test_people_of_one_answer_each_are_refused_before_anything_is_learned(llama, sae):
    one_each = [
        row.model_copy(update={"perspective": f"p{i}"}) for i, row in enumerate(rows()[::2])
    ]
    with pytest.raises(InputError, match="each perspective has answered one question only"):
        learn_directions(llama, sae, one_each, None, QUICK)


def test_a_vector_of_all_moves_every_question(llama, sae):
    asked = ask(llama, rows(), [SITE], ReadoutConfig(), "answer", lambda *_: None)
    vector = np.random.default_rng(0).normal(size=int(llama.cfg.d_model))
    [everywhere, own] = asked.moved(asked.everywhere(vector), asked.pairs({"a": vector}))
    assert set(everywhere) == {(id_, None) for id_ in asked.scores}
    for (id_, name), moved in own.items():
        assert name == "a"
        np.testing.assert_allclose(moved, everywhere[id_, None], atol=1e-5)
        assert np.abs(moved).max() > 0.01


def test_what_does_not_go_together_is_refused(llama, sae, random_sae):
    with pytest.raises(InputError, match="width"):
        learn_directions(llama, random_sae(d_in=64), rows(), None, QUICK)
    with pytest.raises(InputError, match="a model with hooks is needed"):
        learn_directions("gpt2", sae, rows(), None, QUICK)
    with pytest.raises(InputError, match="it must be of class FitConfig"):
        learn_directions(llama, sae, rows(), QUICK)
