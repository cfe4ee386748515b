from dataclasses import replace

import numpy as np
import pytest
import torch
from said import feedback
from tiny import D_MODEL
from torch.utils._python_dispatch import TorchDispatchMode

from saepd.common.errors import InputError
from saepd.features.config import FeatureConfig
from saepd.features.encode import Firing, Pairs
from saepd.features.select import Features, overlap, select_all, select_features
from saepd.features.stability import _moments

CONTRASTS = ("options", "anchor", "others")


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


class Elements(TorchDispatchMode):
    """Counts the elements of all tensors that come about."""

    n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        made = found if isinstance(found, tuple | list) else [found]
        self.n += sum(one.numel() for one in made if isinstance(one, torch.Tensor))
        return found


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


def test_where_nothing_is_stable_the_most_stable_is_kept_and_that_is_said():
    pairs = make_pairs(noise(20, 300), ["ours"] * 20)
    unscreened = select_features(
        pairs, "ours", FeatureConfig(k=10, min_stability=0, contrast="anchor")
    )
    found = select_features(pairs, "ours", FeatureConfig(k=10, min_stability=1, contrast="anchor"))
    assert unscreened.stability.max() < 1
    assert found.latents.tolist() == [unscreened.latents[unscreened.stability.argmax()].item()]
    assert found.n_unstable == 9
    assert (found.n_stable, unscreened.n_stable) == (0, 10)
    [note] = found.notes
    assert note.startswith("No latent of 'ours' reaches the stability 1: the most stable one is")
    assert f"at {float(found.stability[0]):.2f}." in note
    assert unscreened.notes == ()


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_chance_is_the_mean_number_of_stable_latents_of_shuffled_rows(contrast):
    latents = noise(40, 120)
    latents[:16, :6] += 2.0
    names = ["ours"] * 16 + ["theirs"] * 24
    config = FeatureConfig(k=10, min_stability=0.6, n_bootstrap=50, contrast=contrast)
    found = select_features(make_pairs(latents, names), "ours", config)
    counts = []
    for seed in range(20):
        order = torch.randperm(40, generator=torch.Generator().manual_seed(seed)).tolist()
        dealt = ["theirs"] * 40
        for i in order[:16]:
            dealt[i] = "ours"
        # Rows in the order in which they were drawn, so that the draws are the same.
        rows = [*order[:16], *order[16:]]
        shuffled = make_pairs(latents[rows], [dealt[i] for i in rows])
        stable = select_features(shuffled, "ours", config)
        counts.append(int((stable.stability >= 0.6).sum()))
    assert found.n_by_chance == pytest.approx(sum(counts) / 20)
    if contrast == "others":
        assert set(range(6)) <= set(found.latents.tolist())
        assert found.n_by_chance < 6


def test_without_others_there_is_no_chance_to_say():
    pairs = make_pairs(noise(20, 50), ["ours"] * 20)
    assert select_features(pairs, "ours", FeatureConfig(contrast="anchor")).n_by_chance is None


def test_choosing_all_of_few_candidates_does_not_make_them_stable():
    latents = noise(60, 24)
    latents[:30, 4] += 2
    pairs = make_pairs(latents, ["ours"] * 30 + ["theirs"] * 30)
    found = select_features(pairs, "ours", FeatureConfig(k=24, min_stability=0.9))
    assert found.latents.tolist() == [4]
    assert (found.n_candidates, found.n_unstable) == (24, 23)


def test_few_rows_are_said_and_chance_shows_what_they_are_worth():
    pairs = make_pairs(noise(4, 200), ["ours"] * 2 + ["theirs"] * 2)
    found = select_features(pairs, "ours", FeatureConfig())
    assert found.notes[0] == (
        "'ours' has only 2 feedback rows, which can be drawn in 3 ways: stability says little."
    )
    assert found.n_by_chance is not None
    assert found.n_by_chance > len(found.latents) / 2
    many = make_pairs(noise(10, 200), ["ours"] * 5 + ["theirs"] * 5)
    assert select_features(many, "ours", FeatureConfig(min_stability=0)).notes == ()


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_feedback_that_says_the_same_for_all_is_refused(contrast):
    same = noise(5, 30)
    latents = torch.cat([same, same, same]) if contrast == "others" else torch.cat([same, -same])
    names = ["ours"] * 5 + ["theirs"] * 10 if contrast == "others" else ["ours"] * 10
    with pytest.raises(InputError, match=r"'ours' does not differ from the .* at any latent"):
        select_features(make_pairs(latents, names), "ours", FeatureConfig(contrast=contrast))


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_stability_is_the_share_of_draws(contrast):
    latents = noise(24, 20)
    latents[:12] += torch.linspace(0, 1, 20)
    names = ["ours"] * 12 + ["theirs"] * 12
    config = FeatureConfig(k=5, min_stability=0, n_bootstrap=3000, contrast=contrast)
    found = select_features(make_pairs(latents, names), "ours", config)
    rng, chosen = np.random.default_rng(0), np.zeros(20)
    all_rest = list(range(12, 24)) if contrast == "others" else None
    signs = np.sign(effect_by_hand(latents, list(range(12)), all_rest))
    for _ in range(3000):
        own, rest = rng.integers(0, 12, 12), 12 + rng.integers(0, 12, 12)
        effect = effect_by_hand(latents, own, rest if contrast == "others" else None)
        # Of 20 candidates, the 4 strongest are chosen: the root of 0.8 * 20.
        strongest = np.argsort(-np.abs(effect))[:4]
        chosen[strongest] += (np.sign(effect) == signs)[strongest] / 3000
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
    config = FeatureConfig(k=3, min_stability=0, contrast="anchor")
    found = select_features(pairs, "ours", config)
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
        select_features(
            pairs, "ours", FeatureConfig(k=32, min_stability=0, contrast="anchor")
        ).latents
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
        ({"read_at": "first"}, "unknown read_at 'first': use one of last, mean"),
        ({"contrast": "none"}, "unknown contrast 'none': use one of options, anchor"),
        ({"min_stability": 1.5}, "min_stability is 1.5"),
        ({"max_density": -0.1}, "max_density is -0.1"),
        ({"n_bootstrap": 0}, "n_bootstrap is 0"),
        ({"k": 2.5}, "k is 2.5"),
        ({"bootstrap_seed": -1}, "bootstrap_seed is -1"),
        ({"min_stability": float("nan")}, "min_stability is nan"),
        ({"max_density": "low"}, "max_density is 'low'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, match):
    with pytest.raises(InputError, match=match):
        FeatureConfig(**settings)


def test_numbers_of_numpy_are_numbers():
    assert FeatureConfig(k=np.int64(3), max_density=np.float32(0.5)).k == 3


def test_moments_are_those_of_the_drawn_rows():
    rows = noise(7, 5)
    counts = torch.tensor([[1.0, 1, 1, 1, 1, 1, 1], [3, 0, 0, 2, 0, 1, 1], [7, 0, 0, 0, 0, 0, 0]])
    mean, variance = _moments(rows, counts)
    for draw in range(3):
        drawn = np.repeat(rows.numpy(), counts[draw].int().numpy(), axis=0)
        np.testing.assert_allclose(mean[draw], drawn.mean(0), atol=1e-6)
        np.testing.assert_allclose(variance[draw], drawn.var(0), atol=1e-6)
    assert (variance >= 0).all()


def test_overlap_tells_agreement_from_opposition():
    def of(name, **values):
        latents = torch.tensor([int(latent[1:]) for latent in values])
        none = torch.zeros(len(latents))
        value = torch.tensor(list(values.values()))
        return Features(name, latents, none, value, none, none, 0, 0)

    a = of("a", l1=0.5, l2=-1.0, l3=2.0)
    b = of("b", l3=-0.1, l2=-3.0, l9=1.0, l8=1.0)
    opposite = of("c", l1=-0.5, l2=1.0, l3=-2.0)
    assert overlap([a, b, opposite, of("d", l5=1.0)]) == {
        ("a", "b"): (1 / 5, 1 / 5),
        ("a", "c"): (0, 1),
        ("a", "d"): (0, 0),
        ("b", "c"): (1 / 5, 1 / 5),
        ("b", "d"): (0, 0),
        ("c", "d"): (0, 0),
    }
    assert overlap([a]) == {}
    assert overlap([a, of("e", l3=1.0, l2=-1.0, l1=7.0)])["a", "e"].same == 1


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


# --- many perspectives ---


def pairs_of_many(n_perspectives, n_rows=6, d_sae=20):
    names = [f"group {i % n_perspectives}" for i in range(n_rows * n_perspectives)]
    return make_pairs(noise(len(names), d_sae), names)


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_all_at_once_are_what_each_is_alone(contrast):
    latents = noise(30, 40)
    latents[:10, 3] += 3
    pairs = make_pairs(latents, ["a"] * 10 + ["b"] * 8 + ["c"] * 12)
    config = FeatureConfig(k=4, contrast=contrast)
    for own in select_all(pairs, config):
        alone = select_features(pairs, own.perspective, config)
        assert own.n_by_chance == alone.n_by_chance
        for name in ("latents", "effect", "value", "stability", "density"):
            assert torch.equal(getattr(own, name), getattr(alone, name))
    assert [own.perspective for own in select_all(pairs, config)] == ["a", "b", "c"]


def test_each_row_is_asked_once_whose_it_is_however_many_perspectives_there_are():
    n_asked = 0

    class Row:
        def __init__(self, name):
            self.name = name

        @property
        def perspective(self):
            nonlocal n_asked
            n_asked += 1
            return self.name

    pairs = pairs_of_many(30)
    pairs = replace(pairs, rows=[Row(row.perspective) for row in pairs.rows])
    select_all(pairs, FeatureConfig(k=2))
    assert n_asked == len(pairs.rows)


@pytest.mark.parametrize("contrast", ["options", "anchor"])
def test_work_grows_with_the_rows_where_nobody_is_compared_with_all_others(contrast):
    def made(n_perspectives):
        with Elements() as mode:
            select_all(pairs_of_many(n_perspectives), FeatureConfig(k=2, contrast=contrast))
        return mode.n

    assert made(40) < 12 * made(4)


def test_chance_is_measured_once_for_all_perspectives_of_one_size():
    # Against all others, a choice looks at every row; chance would do so twenty times for each.
    def made(n_perspectives, n_rows):
        pairs = pairs_of_many(n_perspectives, n_rows)
        with Elements() as mode:
            select_all(pairs, FeatureConfig(k=2))
        return mode.n

    # As many rows in all.
    assert made(40, 6) < 3 * made(4, 60)
