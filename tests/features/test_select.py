import numpy as np
import pytest
import torch
from tiny import D_MODEL

from saepd.common.errors import InputError
from saepd.features import select as features
from saepd.features.config import FeatureConfig
from saepd.features.encode import Firing, Pairs
from saepd.features.select import Features, overlap, select_features
from saepd.feedback.schema import Feedback

OPTIONS = ("Yes", "No", "Not sure")
CONTRASTS = ("options", "anchor", "others")


def feedback(i, perspective="ours", **answer):
    settings = {"prompt": "Is it so?", "options": OPTIONS, "answer": None} | answer
    if not answer.keys() & {"answer", "comment", "distribution"}:
        settings["answer"] = "Yes"
    return Feedback(id=f"r{i}", perspective=perspective, **settings)


def make_pairs(latents, perspectives, density=None, special_density=None):
    """Pairs as if encoded: latents [rows, d_sae] are the differences from the anchors."""
    n, d_sae = latents.shape
    quiet = torch.full((d_sae,), 0.1)
    return Pairs(
        rows=[feedback(i, name) for i, name in enumerate(perspectives)],
        positive_texts=[f"text {i}" for i in range(n)],
        latents=latents,
        residuals=torch.zeros(n, D_MODEL),
        density=quiet if density is None else density,
        special_density=quiet if special_density is None else special_density,
        positive_latents=latents + 1,
        texts=[[i] for i in range(n)],
        firing=Firing(
            torch.arange(n * d_sae).view(n, d_sae).float(),
            torch.full((n,), 100.0),
            torch.ones(n, d_sae),
            torch.full((n,), 2.0),
        ),
    )


def noise(n, d_sae, seed=0):
    return torch.randn(n, d_sae, generator=torch.Generator().manual_seed(seed))


def effect_by_hand(latents, own, rest=None):
    """Mean over moderated standard error over root n, latent by latent (Tusher et al. 2001)."""
    own = latents.double().numpy()[own]
    mean, squared = own.mean(0), own.var(0) / len(own)
    if rest is not None:
        rest = latents.double().numpy()[rest]
        mean, squared = mean - rest.mean(0), squared + rest.var(0) / len(rest)
    error = np.sqrt(squared)
    middle = np.sort(error)[(len(error) - 1) // 2]
    return mean / (error + middle) / np.sqrt(len(own))


# --- selection ---


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("shift", [2.0, -2.0])
def test_a_planted_latent_is_found(contrast, shift):
    latents = noise(60, 80)
    latents[:20, 7] += shift
    if contrast == "others":
        # Every positive has this one; it says nothing of whose positive it is.
        latents[:, 11] += 10.0
    pairs = make_pairs(latents, ["ours"] * 20 + ["theirs"] * 40)
    found = select_features(pairs, "ours", FeatureConfig(k=5, contrast=contrast))
    assert found.perspective == "ours"
    assert found.latents[0] == 7
    assert found.stability[0] > 0.95
    assert found.n_candidates == 80
    assert found.n_unstable == 5 - len(found.latents)
    expected = latents[:20].mean(0)
    if contrast == "others":
        expected = expected - latents[20:].mean(0)
        assert 11 not in found.latents
    torch.testing.assert_close(found.value, expected[found.latents])
    assert found.value[0].sign() == np.sign(shift)


def test_the_rows_of_others_do_not_matter_against_the_anchor():
    latents = noise(30, 40)
    pairs = make_pairs(latents, ["ours"] * 10 + ["theirs"] * 20)
    changed = latents.clone()
    changed[10:] += 5 * noise(20, 40, seed=1)
    other = make_pairs(changed, ["ours"] * 10 + ["theirs"] * 20)
    config = FeatureConfig(k=6, min_stability=0, contrast="anchor")
    one, two = (select_features(p, "ours", config) for p in (pairs, other))
    assert torch.equal(one.latents, two.latents)
    assert torch.equal(one.effect, two.effect)
    against = FeatureConfig(k=6, min_stability=0, contrast="others")
    assert not torch.equal(select_features(other, "ours", against).latents, one.latents)


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_effect_is_the_formula(contrast):
    latents = noise(25, 30) * torch.rand(30, generator=torch.Generator().manual_seed(2)) * 3
    names = ["ours", "theirs", "others", "ours", "theirs"] * 5
    own = [i for i, name in enumerate(names) if name == "ours"]
    rest = [i for i, name in enumerate(names) if name != "ours"]
    expected = effect_by_hand(latents, own, rest if contrast == "others" else None)
    config = FeatureConfig(k=30, min_stability=0, contrast=contrast)
    found = select_features(make_pairs(latents, names), "ours", config)
    assert found.latents.tolist() == np.argsort(-np.abs(expected)).tolist()
    np.testing.assert_allclose(found.effect, expected[found.latents], atol=1e-5)


def test_a_latent_that_hardly_varies_does_not_win_by_that():
    latents = noise(30, 40)
    latents[:, 3] = 0.01 + 1e-5 * latents[:, 3]
    latents[:, 9] += 1.5
    pairs = make_pairs(latents, ["ours"] * 30)
    assert select_features(
        pairs, "ours", FeatureConfig(k=1, contrast="anchor")
    ).latents.tolist() == [9]


def test_noise_is_not_stable():
    pairs = make_pairs(noise(20, 300), ["ours"] * 20)
    found = select_features(
        pairs, "ours", FeatureConfig(k=10, min_stability=0.9, contrast="anchor")
    )
    assert found.n_unstable >= 8
    assert len(found.latents) == 10 - found.n_unstable
    # The same choice without the screen, to see what was dropped.
    unscreened = select_features(
        pairs, "ours", FeatureConfig(k=10, min_stability=0, contrast="anchor")
    )
    assert len(unscreened.latents) == 10
    assert unscreened.n_unstable == 0
    kept = unscreened.latents[unscreened.stability >= 0.9].tolist()
    most_stable = unscreened.latents[unscreened.stability.argmax()].tolist()
    assert found.latents.tolist() == (kept or [most_stable])


def test_where_nothing_is_stable_the_most_stable_is_kept():
    pairs = make_pairs(noise(20, 300), ["ours"] * 20)
    unscreened = select_features(
        pairs, "ours", FeatureConfig(k=10, min_stability=0, contrast="anchor")
    )
    found = select_features(pairs, "ours", FeatureConfig(k=10, min_stability=1, contrast="anchor"))
    assert unscreened.stability.max() < 1
    assert found.latents.tolist() == [unscreened.latents[unscreened.stability.argmax()].item()]
    assert found.n_unstable == 9


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_stability_is_the_share_of_draws(contrast):
    latents = noise(24, 20)
    latents[:12] += torch.linspace(0, 1, 20)
    names = ["ours"] * 12 + ["theirs"] * 12
    config = FeatureConfig(k=5, min_stability=0, n_bootstrap=3000, contrast=contrast)
    found = select_features(make_pairs(latents, names), "ours", config)
    rng, chosen = np.random.default_rng(0), np.zeros(20)
    for _ in range(3000):
        own, rest = rng.integers(0, 12, 12), 12 + rng.integers(0, 12, 12)
        effect = effect_by_hand(latents, own, rest if contrast == "others" else None)
        chosen[np.argsort(-np.abs(effect))[:5]] += 1 / 3000
    np.testing.assert_allclose(found.stability, chosen[found.latents], atol=0.05)
    assert found.stability.min() < 0.95


def test_draws_are_those_of_the_seed():
    pairs = make_pairs(noise(20, 100), ["ours"] * 20)

    def stability(seed):
        config = FeatureConfig(k=20, min_stability=0, bootstrap_seed=seed, contrast="anchor")
        return select_features(pairs, "ours", config).stability

    assert torch.equal(stability(0), stability(0))
    assert not torch.equal(stability(0), stability(1))


def test_latents_that_fire_everywhere_or_only_in_the_template_are_left_out():
    latents = noise(20, 10) + torch.tensor([9.0, 8, 7, 6, 5, 0, 0, 0, 0, 0])
    latents[:, 5] = 0
    density, special = torch.full((10,), 0.1), torch.full((10,), 0.2)
    density[0], density[1] = 0.31, 0.3
    density[2], special[2] = 0, 0.4
    density[3], special[3] = 0, 0
    pairs = make_pairs(latents, ["ours"] * 20, density, special)
    found = select_features(pairs, "ours", FeatureConfig(k=3, contrast="anchor"))
    # 0 is too dense, 2 marks the template, and 5 never fires.
    assert found.latents.tolist() == [1, 3, 4]
    assert found.n_candidates == 7
    assert torch.equal(found.density, density[found.latents])
    assert (
        0
        in select_features(
            pairs, "ours", FeatureConfig(k=3, max_density=0.5, contrast="anchor")
        ).latents
    )


def test_fewer_candidates_than_k_are_all_taken():
    pairs = make_pairs(noise(20, 4) + 3, ["ours"] * 20)
    assert sorted(
        select_features(pairs, "ours", FeatureConfig(k=32, contrast="anchor")).latents
    ) == [0, 1, 2, 3]


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_without_k_all_latents_that_fire_are_taken(contrast):
    latents = noise(20, 6)
    latents[:, 2] = 0
    names = ["ours"] * 5 + ["theirs"] * 15
    pairs = make_pairs(latents, names, density=torch.full((6,), 0.9))
    found = select_features(pairs, "ours", FeatureConfig(k=0, contrast=contrast))
    expected = latents[:5].mean(0) - (latents[5:].mean(0) if contrast == "others" else 0)
    assert found.latents.tolist() == [0, 1, 3, 4, 5]
    torch.testing.assert_close(found.value, expected[found.latents])
    assert (found.n_candidates, found.n_unstable) == (5, 0)


def test_choices_that_cannot_be_made_are_refused():
    pairs = make_pairs(noise(5, 10), ["ours"] * 4 + ["single"])
    for name, config, match in [
        ("single", FeatureConfig(contrast="anchor"), "'single' has 1 feedback rows: 2 are needed"),
        ("nobody", FeatureConfig(contrast="anchor"), "'nobody' has 0 feedback rows"),
        ("ours", FeatureConfig(contrast="others"), "needs feedback of at least one more"),
        (
            "ours",
            FeatureConfig(max_density=0.05, contrast="anchor"),
            "no latent passes the density screen for 'ours'",
        ),
    ]:
        with pytest.raises(InputError, match=match):
            select_features(pairs, name, config)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"k": -1}, "k is -1"),
        ({"read_at": "first"}, "unknown read_at 'first': use last or mean"),
        ({"contrast": "none"}, "unknown contrast 'none': use one of options, anchor"),
        ({"min_stability": 1.5}, "min_stability is 1.5"),
        ({"max_density": -0.1}, "max_density is -0.1"),
        ({"n_bootstrap": 0}, "n_bootstrap is 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, match):
    with pytest.raises(InputError, match=match):
        FeatureConfig(**settings)


def test_moments_are_those_of_the_drawn_rows():
    rows = noise(7, 5)
    counts = torch.tensor([[1.0, 1, 1, 1, 1, 1, 1], [3, 0, 0, 2, 0, 1, 1], [7, 0, 0, 0, 0, 0, 0]])
    mean, variance = features._moments(rows, counts)
    for draw in range(3):
        drawn = np.repeat(rows.numpy(), counts[draw].int().numpy(), axis=0)
        np.testing.assert_allclose(mean[draw], drawn.mean(0), atol=1e-6)
        np.testing.assert_allclose(variance[draw], drawn.var(0), atol=1e-6)
    assert (variance >= 0).all()


def test_overlap_is_jaccards():
    def of(name, *latents):
        none = torch.zeros(len(latents))
        return Features(name, torch.tensor(latents), none, none, none, none, 0, 0)

    found = overlap([of("a", 1, 2, 3), of("b", 3, 2, 9, 8), of("c", 5), of("d", 3, 1, 2)])
    assert found == {
        ("a", "b"): 2 / 5,
        ("a", "c"): 0,
        ("a", "d"): 1,
        ("b", "c"): 0,
        ("b", "d"): 2 / 5,
        ("c", "d"): 0,
    }
    assert overlap([of("a", 1)]) == {}


def test_perspectives_and_their_rows():
    pairs = make_pairs(noise(4, 3), ["b", "a", "b", "c"])
    assert pairs.perspectives == ["b", "a", "c"]
    assert pairs.of("b").tolist() == [0, 2]
    assert pairs.of("nobody").tolist() == []


def test_selected_pairs_are_those_of_the_rows():
    pairs = make_pairs(noise(5, 3), ["a", "b", "a", "b", "a"])
    some = pairs.select([pairs.rows[3], pairs.rows[0]])
    assert [row.id for row in some.rows] == ["r3", "r0"]
    assert some.positive_texts == ["text 3", "text 0"]
    assert torch.equal(some.latents, pairs.latents[[3, 0]])
    assert torch.equal(some.positive_latents, pairs.positive_latents[[3, 0]])
    assert some.residuals.shape == (2, D_MODEL)
    # Only the chosen rows' own texts count: rows 0 and 3, of 100 counted positions each.
    torch.testing.assert_close(some.density, torch.tensor([0 + 9, 1 + 10, 2 + 11]) / 200)
    torch.testing.assert_close(some.special_density, torch.full((3,), 0.5))
