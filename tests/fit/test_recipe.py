import json

import pytest
import torch
from tiny import SITE

from saepd.branches.neutral import NEUTRAL_PROMPTS, kl_to_base
from saepd.branches.run import branch
from saepd.common.errors import InputError
from saepd.features.config import FeatureConfig
from saepd.features.encode import encode_pairs
from saepd.features.select import select_features
from saepd.feedback.reading import load_feedback
from saepd.feedback.schema import Feedback
from saepd.fit.config import DirectionConfig, FitConfig
from saepd.fit.recipe import fit_directions, fit_pairs
from saepd.models.identity import weights_fingerprint
from saepd.saes.load import sae_fingerprint

OPTIONS = ("Yes", "No")
CHOICE = FeatureConfig(contrast="options", k=6, min_stability=0.2, max_density=1.0, n_bootstrap=30)


@pytest.fixture(scope="module")
def rows():
    return [
        Feedback(
            id=f"{name} {i}",
            perspective=name,
            prompt=f"Question {i}{'?' * (i % 3)}",
            options=OPTIONS,
            answer=answer,
        )
        for name, answer in (("for", "Yes"), ("against", "No"))
        for i in range(6)
    ]


@pytest.fixture(scope="module")
def sae(random_sae):
    return random_sae("jumprelu")


def fitted(llama, sae, rows, features=CHOICE, **direction):
    return fit_directions(llama, sae, rows, FitConfig(features, DirectionConfig(**direction)))


def test_each_perspective_gets_the_direction_of_its_features(llama, sae, rows):
    fit = fitted(llama, sae, rows, coefficient=2.5, positions="last(3)")
    config = FitConfig(CHOICE)
    pairs = encode_pairs(llama, sae, rows, CHOICE, config.readout)
    assert torch.equal(fit.pairs.latents, pairs.latents)
    assert [d.perspective for d in fit.directions] == ["for", "against"]
    for direction, features in zip(fit.directions, fit.features, strict=True):
        chosen = select_features(pairs, direction.perspective, CHOICE)
        assert features.perspective == direction.perspective
        assert torch.equal(direction.edit.latents, chosen.latents)
        mean = pairs.latents[pairs.of(direction.perspective)].mean(0)[chosen.latents]
        torch.testing.assert_close(direction.edit.values, mean)
        assert (direction.edit.mode, direction.positions) == ("add", "last(3)")
        assert (direction.coefficient, direction.hook_name) == (2.5, SITE)
        assert direction.edit.sae is sae
    # One says what the other denies: of two options each is as far from their mean.
    torch.testing.assert_close(fit.pairs.latents[:6], -fit.pairs.latents[6:], atol=1e-5, rtol=1e-4)


def test_what_is_added_at_the_site_is_what_was_fitted(llama, sae, rows):
    fit = fitted(llama, sae, rows, positions="answer")
    tokens = torch.tensor([llama.tokenizer("Is it so?").input_ids])
    _, cache = llama.run_with_cache(tokens, names_filter=[SITE])
    before = cache[SITE].clone()
    for direction, features in zip(fit.directions, fit.features, strict=True):
        with direction.apply(llama):
            _, cache = llama.run_with_cache(tokens, names_filter=[SITE])
        added = sum(
            value * sae.W_dec[latent]
            for latent, value in zip(features.latents, features.value, strict=True)
        )
        torch.testing.assert_close(cache[SITE][0, -1], before[0, -1] + added, atol=1e-5, rtol=1e-5)
        assert torch.equal(cache[SITE][0, :-1], before[0, :-1])


def test_clamped_latents_are_held_at_what_they_are_in_the_answers(llama, sae, rows):
    fit = fitted(llama, sae, rows, mode="clamp", positions="answer")
    for direction in fit.directions:
        own = fit.pairs.of(direction.perspective)
        expected = fit.pairs.positive_latents[own][:, direction.edit.latents].mean(0)
        torch.testing.assert_close(direction.edit.values, expected)
        assert (expected >= 0).all()
        assert expected.max() > 0


@pytest.mark.parametrize("factor", [3.0, 0.0])
def test_scaled_latents_have_the_factor(llama, sae, rows, factor):
    fit = fitted(llama, sae, rows, mode="scale", factor=factor)
    for direction, features in zip(fit.directions, fit.features, strict=True):
        assert direction.edit.mode == "scale"
        assert direction.edit.values.tolist() == [factor] * len(features.latents)


def test_ablated_latents_need_no_values(llama, sae, rows):
    for direction in fitted(llama, sae, rows, mode="ablate").directions:
        assert (direction.edit.mode, direction.edit.values) == ("ablate", None)


def test_a_budget_takes_the_place_of_the_coefficient(llama, sae, rows):
    fit = fitted(llama, sae, rows, kl_budget=0.02, coefficient=77.0)
    kl = kl_to_base(branch(llama, NEUTRAL_PROMPTS, fit.directions))
    assert (kl <= 0.02 * 1.001).all()
    # Within one step of the search: the KL grows about as the square of the coefficient.
    assert (kl > 0.02 / 2 ** (2 / 9) / 1.2).all()
    assert all(d.coefficient not in (1.0, 77.0) for d in fit.directions)


def test_feedback_comes_in_every_form(llama, sae, rows, tmp_path):
    path = tmp_path / "feedback.jsonl"
    path.write_text("".join(row.model_dump_json(exclude_none=True) + "\n" for row in rows))
    expected = fit_directions(llama, sae, rows, FitConfig(CHOICE)).directions
    for form in (str(path), load_feedback(path), tuple(rows), iter(rows)):
        for one, other in zip(
            fit_directions(llama, sae, form, FitConfig(CHOICE)).directions, expected, strict=True
        ):
            assert torch.equal(one.constant, other.constant)
    for wrong in (3, None, [3], rows[0]):
        with pytest.raises(InputError, match="feedback"):
            fit_directions(llama, sae, wrong)


def test_a_fit_is_shown_in_a_line(llama, sae, rows):
    shown = repr(fitted(llama, sae, rows))
    assert "'for': " in shown
    assert "12 rows of feedback" in shown
    assert len(shown) < 120


def test_encoded_feedback_can_be_fitted_again(llama, sae, rows):
    config = FitConfig(CHOICE, DirectionConfig(coefficient=2.0))
    fit = fit_directions(llama, sae, rows, config)
    again = fit_pairs(llama, sae, fit.pairs, config)
    for one, other in zip(fit.directions, again.directions, strict=True):
        assert torch.equal(one.edit.latents, other.edit.latents)
        assert torch.equal(one.edit.values, other.edit.values)
        assert one.lineage == other.lineage
    half = fit_pairs(llama, sae, fit.pairs.select(rows[:3] + rows[6:9]), config)
    assert half.directions[0].lineage["n_feedback"] == 6
    assert (
        half.directions[0].lineage["feedback_sha256"]
        != fit.directions[0].lineage["feedback_sha256"]
    )


def test_the_lineage_tells_where_a_direction_comes_from(llama, sae, rows):
    lineage = fitted(llama, sae, rows, coefficient=2.0).directions[1].lineage
    assert json.loads(json.dumps(lineage)) == lineage
    assert lineage["model"] == "llama"
    assert lineage["model_fingerprint"] == weights_fingerprint(llama)
    assert lineage["sae"] == f"tiny/{SITE}"
    assert lineage["sae_fingerprint"] == sae_fingerprint(sae)
    assert lineage["n_feedback"] == 12
    assert lineage["config"]["features"]["k"] == 6
    assert lineage["config"]["direction"]["coefficient"] == 2.0
    assert lineage["config"]["readout"]["readout"] == "text"
    assert {"torch", "sae-lens", "saepd"} <= lineage["versions"].keys()
    assert all(isinstance(version, str) for version in lineage["versions"].values())


def test_the_lineage_knows_other_feedback(llama, sae, rows):
    one = fitted(llama, sae, rows).directions[0].lineage["feedback_sha256"]
    changed = [rows[0].model_copy(update={"answer": "No"}), *rows[1:]]
    assert fitted(llama, sae, changed).directions[0].lineage["feedback_sha256"] != one
    assert fitted(llama, sae, list(rows)).directions[0].lineage["feedback_sha256"] == one


def test_feedback_that_cannot_be_fitted_is_refused(llama, sae, rows):
    with pytest.raises(InputError, match="'against' has 1 feedback rows: 2 are needed"):
        fitted(llama, sae, rows[:7])


def test_what_does_not_go_together_is_refused(llama, sae, random_sae, rows):
    with pytest.raises(InputError, match="width"):
        fit_directions(llama, random_sae(d_in=64), rows)
    with pytest.raises(InputError, match="a model with hooks is needed"):
        fit_directions("gpt2", sae, rows)
    with pytest.raises(InputError, match="it must be of class FitConfig"):
        fit_directions(llama, sae, rows, CHOICE)
