"""Planted truth: latents like an SAE's, sparse and skewed, of which one tells who gave a row."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from saepd.features.config import FeatureConfig
from saepd.features.encode import Pairs
from saepd.features.sureness import SURE, surenesses
from saepd.feedback.schema import Feedback

PLANTED, N_LATENTS, N_EACH = 7, 400, 50
CONFIG = FeatureConfig(max_density=1.0)


def made(seed, *, planted, perspectives=("A", "B", "C")):
    """Rows about ten questions; in those of the topic, A makes one latent fire, others do not."""
    rng = np.random.default_rng(seed)
    n_rows = N_EACH * len(perspectives)
    rows = [
        Feedback(
            id=f"{name}{i}", perspective=name, prompt=f"Q{i % 10}?", item=f"q{i % 10}",
            options=("Yes", "No"), answer=("Yes", "No")[i % 2],
        )
        for name in perspectives
        for i in range(N_EACH)
    ]  # fmt: skip
    # Latents fire by question and by answer, so that they go together as an SAE's do.
    of_text = rng.random((20, N_LATENTS)) < 0.12
    strength = rng.gamma(2.0, size=(20, N_LATENTS)) * of_text
    text = np.array([int(row.item[1:]) * 2 + (row.answer == "Yes") for row in rows])
    text = np.where(rng.random(n_rows) < 0.3, rng.integers(0, 20, n_rows), text)
    latents = strength[text] * rng.uniform(0.8, 1.2, (n_rows, N_LATENTS))
    latents[:, PLANTED] = rng.gamma(2.0, size=n_rows) * (rng.random(n_rows) < 0.05)
    if planted:
        topic = np.array([row.perspective == "A" and row.item <= "q6" for row in rows])
        latents[topic, PLANTED] = rng.gamma(4.0, size=topic.sum())
    values = torch.tensor(latents, dtype=torch.float32)
    return Pairs(
        rows=rows,
        positive_texts=[f"{row.prompt} {row.answer}" for row in rows],
        latents=values,
        residuals=values[:, :4],
        density=(values > 0).float().mean(0),
        special_density=torch.zeros(N_LATENTS),
        positive_latents=values,
    )


def test_the_planted_latent_comes_first_and_is_sure():
    a, b, _ = surenesses(made(0, planted=True), CONFIG)
    assert int(np.nanargmin(a.false_sign_rate)) == PLANTED
    assert a.false_sign_rate[PLANTED] < SURE
    assert a.n_sure <= 3
    assert a.n_by_chance < 0.2
    # Of the others, each is one of two that it is not: that says less.
    assert b.false_sign_rate[PLANTED] > a.false_sign_rate[PLANTED]


@pytest.mark.parametrize("planted", [True, False])
def test_on_shuffled_feedback_nothing_is_sure_in_19_of_20_draws(planted):
    pairs = made(0, planted=planted)
    with_any = 0
    for seed in range(20):
        order = np.random.default_rng([9, seed]).permutation(len(pairs.rows))
        rows = [
            row.model_copy(update={"perspective": pairs.rows[i].perspective})
            for row, i in zip(pairs.rows, order.tolist(), strict=True)
        ]
        with_any += any(one.n_sure for one in surenesses(replace(pairs, rows=rows), CONFIG)[:1])
    assert with_any <= 1


def test_against_options_rows_are_compared_with_themselves():
    rng = np.random.default_rng(0)
    pairs = made(1, planted=False)
    noise = torch.tensor(rng.normal(size=pairs.latents.shape), dtype=torch.float32)
    noise[:, PLANTED] += 1.5
    config = replace(CONFIG, contrast="options")
    for one in surenesses(replace(pairs, latents=noise), config):
        assert one.false_sign_rate[PLANTED] < 0.001
        assert one.shuffles_with_any <= 1


def test_screened_latents_have_no_rate():
    pairs = made(0, planted=False)
    density = pairs.density.clone()
    density[3] = 1.0
    [first, *_] = surenesses(replace(pairs, density=density), FeatureConfig(max_density=0.9))
    assert np.isnan(first.false_sign_rate[3])


def test_rows_that_never_vary_are_no_reason_to_be_sure():
    pairs = made(0, planted=False)
    one = torch.ones_like(pairs.latents)
    for found in surenesses(replace(pairs, latents=one), CONFIG):
        assert found.n_sure == 0
