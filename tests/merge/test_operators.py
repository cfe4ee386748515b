import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import entropy

from saepd.common.errors import InputError
from saepd.merge.config import READINGS, MergeConfig
from saepd.merge.operators import OPERATORS, merge_branches, pluralistic_weights

# The author's example: Yes, No, Unclear.
THREE_WAY = torch.tensor([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]]).log()
FLAT = torch.full((3,), 1 / 3).log()


def config(operator, n_branches, **numbers):
    uneven = tuple(float(w) for w in np.arange(1, n_branches + 1) / math.comb(n_branches + 1, 2))
    return MergeConfig(operator, weights=uneven if operator == "weighted" else (), **numbers)


def random_branches(*shape):
    generator = torch.Generator().manual_seed(7)
    return (2 * torch.randn(shape, generator=generator)).log_softmax(-1)


@st.composite
def branch_sets(draw, zeros=False):
    """Log-probs [branches, vocab], from nearly flat to nearly certain, with or without zeros."""
    n, vocab = draw(st.integers(2, 6)), draw(st.integers(2, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = draw(st.sampled_from([0.01, 1.0, 4.0, 15.0])) * rng.normal(size=(n, vocab))
    if zeros:
        logits[rng.random((n, vocab)) < 0.5] = -np.inf
        logits[np.arange(n), rng.integers(vocab, size=n)] = 0.0
    return torch.tensor(logits, dtype=torch.float32).log_softmax(-1)


def examples(**strategies):
    """Hypothesis' given, without a deadline: the machine that runs this may be busy."""
    return lambda test: settings(deadline=None, max_examples=25)(given(**strategies)(test))


every_operator = pytest.mark.parametrize("operator", OPERATORS)


def assert_same(left, right):
    torch.testing.assert_close(left.exp(), right.exp(), atol=2e-5, rtol=0)


@every_operator
@examples(branches=branch_sets() | branch_sets(zeros=True), alpha=st.floats(0, 3))
def test_output_is_a_float32_distribution(operator, branches, alpha):
    merged = merge_branches(branches.double(), config(operator, len(branches), alpha=alpha))
    assert merged.dtype == torch.float32
    assert not merged.isnan().any()
    assert merged.logsumexp(-1).abs() < 1e-5
    assert merged[branches.isneginf().all(0)].isneginf().all()


@pytest.mark.parametrize("operator", ["pluralistic", "mixture", "product"])
def test_branches_without_a_common_option(operator):
    merged = merge_branches(torch.eye(4)[:3].log(), MergeConfig(operator))
    assert_same(merged[:3], FLAT)


@every_operator
@examples(branches=branch_sets(), copies=st.integers(1, 5))
def test_branches_equal_to_the_base_return_the_base(operator, branches, copies):
    same = branches[:1].repeat(copies + 1, 1)
    assert_same(merge_branches(same, config(operator, copies + 1)), branches[0])


@every_operator
@examples(branches=branch_sets(), data=st.data())
def test_order_of_options_and_of_steered_branches_does_not_matter(operator, branches, data):
    options = data.draw(st.permutations(range(branches.shape[1])))
    steered = range(1, len(branches))
    if operator != "weighted":
        steered = data.draw(st.permutations(steered))
    setting = config(operator, len(branches))
    merged = merge_branches(branches[[0, *steered]][:, options], setting)
    assert_same(merged, merge_branches(branches, setting)[options])


@every_operator
def test_batch_row_equals_solo_merge(operator):
    batch = random_branches(2, 3, 4, 7)
    setting = config(operator, 4)
    merged = merge_branches(batch, setting)
    assert merged.shape == (2, 3, 7)
    for i, j in np.ndindex(2, 3):
        torch.testing.assert_close(merged[i, j], merge_branches(batch[i, j], setting))


def pluralistic_by_hand(log_probs, alpha, tau, reading):
    """The docstrings' formulas, branch by branch, in double precision."""
    p = np.exp(log_probs.double().numpy())
    plausible = (p >= tau * p.max(1, keepdims=True)).any(0)
    base, *steered = [row[plausible] / row[plausible].sum() for row in p]
    gains = [np.maximum(row - base, 0) for row in steered]
    magnitudes, claims = [], []
    for row, gain in zip(steered, gains, strict=True):
        if reading == "softmax":
            magnitude = entropy(row / base)
        else:
            magnitude = entropy(np.abs(np.log(row / base)))
        if reading == "magnitude-sized":
            magnitude *= gain.sum()
        company = sum(np.minimum(gain, other).sum() for other in gains) / gain.sum()
        magnitudes.append(magnitude)
        claims.append(magnitude / company)
    weights = np.array(claims) / (max(magnitudes) + sum(claims))
    moved = base * np.exp(alpha * weights @ np.log(np.array(steered) / base))
    result = p[0].copy()
    result[plausible] *= moved / moved.sum() / base
    return weights, result


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("tau", [1e-6, 0.1, 0.7])
@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.0])
def test_pluralistic_follows_its_formula(reading, tau, alpha):
    for branches in random_branches(10, 5, 8):
        weights, result = pluralistic_by_hand(branches, alpha, tau, reading)
        setting = MergeConfig(alpha=alpha, tau=tau, reading=reading)
        np.testing.assert_allclose(pluralistic_weights(branches, setting), weights, atol=1e-5)
        np.testing.assert_allclose(merge_branches(branches, setting).exp(), result, atol=1e-5)


def test_author_example_comes_out_flat():
    for reading in READINGS:
        assert_same(merge_branches(THREE_WAY, MergeConfig(reading=reading)), FLAT)


@pytest.mark.parametrize("operator", ["cad", "saepd-released"])
@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0])
def test_contrast_does_not_flatten_the_author_example(operator, alpha):
    merged = merge_branches(THREE_WAY, MergeConfig(operator, alpha=alpha)).exp()
    assert merged.max() > 0.45
    assert merged[0] < 0.05 < THREE_WAY[0, 0].exp()


def test_copies_of_a_branch_do_not_drown_a_distinct_one():
    base, no, unclear = THREE_WAY
    crowd = torch.stack([base, no, no, no, no, unclear])
    assert_same(merge_branches(crowd, MergeConfig()), FLAT)
    # In the mean of probabilities it drowns.
    assert merge_branches(crowd, MergeConfig("mixture"))[2].exp() < 0.2


@examples(branches=branch_sets(), copies=st.integers(2, 5))
def test_copies_of_the_only_branch_count_once(branches, copies):
    crowd = torch.cat([branches[:1], branches[1:2].repeat(copies, 1)])
    assert_same(merge_branches(crowd, MergeConfig()), merge_branches(branches[:2], MergeConfig()))


def test_the_more_a_branch_changed_the_more_it_counts():
    base, no, unclear = THREE_WAY
    counts = []
    for share in (0.0, 0.1, 0.3, 0.6, 1.0):
        partly = base.exp().lerp(unclear.exp(), share).log()
        counts.append(pluralistic_weights(torch.stack([base, partly, no]), MergeConfig()).tolist())
    assert counts[0][0] == 0
    assert counts == sorted(counts)
    assert counts[1][0] < counts[1][1] / 4


def test_a_weak_echo_hardly_takes_weight_from_a_strong_branch():
    echo = torch.tensor([[0.85, 0.1, 0.05]]).log()
    alone = pluralistic_weights(THREE_WAY, MergeConfig())
    echoed = pluralistic_weights(torch.cat([THREE_WAY, echo]), MergeConfig())
    assert echoed[0] > 0.9 * alone[0]
    assert echoed[2] < 0.05


@pytest.mark.parametrize("reading", ["magnitude-sized", "magnitude"])
@examples(branches=branch_sets(), copies=st.integers(1, 3))
def test_an_unchanged_branch_weighs_nothing(reading, branches, copies):
    setting = MergeConfig(reading=reading)
    padded = torch.cat([branches, branches[:1].repeat(copies, 1)])
    assert_same(merge_branches(padded, setting), merge_branches(branches, setting))
    assert (pluralistic_weights(padded, setting)[-copies:] == 0).all()


def test_only_the_default_reading_is_continuous_where_nothing_changed():
    barely = torch.stack([THREE_WAY[0], THREE_WAY[1], THREE_WAY[0] + torch.tensor([0, 1e-4, 0])])
    weight = {r: float(pluralistic_weights(barely, MergeConfig(reading=r))[1]) for r in READINGS}
    assert weight["magnitude-sized"] < 1e-4
    assert weight["magnitude"] > 0.01
    assert weight["softmax"] > 0.3


@examples(branches=branch_sets())
def test_log_odds_stay_between_the_branches_at_alpha_one(branches):
    merged = merge_branches(branches, MergeConfig(tau=1e-12))
    plausible = (branches >= branches.amax(-1, keepdim=True) + math.log(1e-12)).any(0)
    odds = branches[:, plausible] - branches[:, plausible][:, :1]
    merged_odds = merged[plausible] - merged[plausible][0]
    assert (merged_odds <= odds.amax(0) + 1e-3).all()
    assert (merged_odds >= odds.amin(0) - 1e-3).all()


BRANCHES = random_branches(20, 4, 6)


def normalised(scores):
    return scores - logsumexp(scores, axis=-1, keepdims=True)


def test_pools_and_contrast_follow_their_formulas():
    log_probs = BRANCHES.double().numpy()
    probabilities = np.exp(log_probs)
    weights = (0.5, 0.3, 0.2, 0.0)
    geometric = np.prod(probabilities, axis=1) ** 0.25
    contrast = 2.5 * normalised(log_probs[:, 1:].mean(1)) - 1.5 * log_probs[:, 0]
    for setting, expected in (
        (MergeConfig("mixture"), probabilities.mean(1)),
        (MergeConfig("product"), geometric / geometric.sum(-1, keepdims=True)),
        (MergeConfig("weighted", weights=weights), np.einsum("b,nbv->nv", weights, probabilities)),
        (MergeConfig("cad", alpha=1.5), np.exp(normalised(contrast))),
    ):
        np.testing.assert_allclose(merge_branches(BRANCHES, setting).exp(), expected, atol=1e-5)


def test_dcd_follows_its_formula():
    def gap(log_probs):
        return np.diff(np.sort(np.exp(log_probs))[-2:])[0]

    merged = merge_branches(BRANCHES, MergeConfig("dcd")).exp()
    betas, gammas = [], []
    for row, result in zip(BRANCHES.double().numpy(), merged, strict=True):
        together = normalised(row[1:].mean(0))
        high, *_, low = sorted(row[1:], key=lambda branch: entropy(np.exp(branch)))
        betas.append(max(0, gap(together) - gap(row[0])))
        gammas.append(max(0, gap(high) - gap(low)))
        scores = together + betas[-1] * (together - row[0]) + gammas[-1] * (high - low)
        np.testing.assert_allclose(result, np.exp(normalised(scores)), atol=1e-5)
    # Both strengths, and both sides of beta's zero, must have been tried.
    assert min(betas) == 0 < min(max(betas), max(gammas))


@pytest.mark.parametrize("tau", [0.4, 1.0])
def test_released_code_is_contrast_with_the_mean(tau):
    """The published arithmetic on raw logits, whose largest values are positive."""
    base, *steered = logits = 12 + BRANCHES[:, 0]
    tops = [row[(row / tau).softmax(-1).topk(3).indices] for row in steered]
    entropies = [-(top.exp() * top.clip(-100, 0)).sum() for top in tops]
    weights = torch.stack(entropies).softmax(0)
    contrasts = torch.stack([1.2 * row - 0.2 * base for row in steered])
    merged = merge_branches(logits.log_softmax(-1), MergeConfig("saepd-released", alpha=0.2))
    assert_same(merged, (weights @ contrasts).log_softmax(-1))


UNUSABLE_WEIGHTS = ((0.7, 0.7), (1.5, -0.5), (math.nan, 1.0), (1.0, math.nan))
BAD_CONFIGS = [
    ({"operator": "mixtur"}, "'mixtur': did you mean 'mixture'"),
    ({"reading": "magnitud"}, "'magnitud': did you mean 'magnitude'"),
    *(({"alpha": alpha}, "alpha") for alpha in (math.nan, math.inf, -0.1)),
    *(({"tau": tau}, "tau") for tau in (0.0, 1.1, -0.5, math.nan)),
    ({"operator": "weighted"}, "needs weights"),
    ({"weights": (0.5, 0.5)}, "takes no weights"),
    *(({"operator": "weighted", "weights": w}, "weights") for w in UNUSABLE_WEIGHTS),
]


@pytest.mark.parametrize(("numbers", "message"), BAD_CONFIGS)
def test_configs_are_checked_where_they_are_made(numbers, message):
    with pytest.raises(InputError, match=message):
        MergeConfig(**numbers)


def test_shapes_that_do_not_fit():
    with pytest.raises(InputError, match="2 weights for 3 branches"):
        merge_branches(THREE_WAY, MergeConfig("weighted", weights=(0.5, 0.5)))
    for shape in ((3,), (1, 3), (2, 1)):
        with pytest.raises(InputError, match="shape"):
            merge_branches(torch.zeros(shape).log_softmax(-1), MergeConfig())


@pytest.mark.parametrize("entry", [merge_branches, pluralistic_weights])
@pytest.mark.parametrize(
    ("value", "fault"),
    [(math.nan, "holds NaN"), (math.inf, "has logsumexp inf"), (0, "has logsumexp 1.099")],
)
def test_bad_log_probs_are_named_by_their_index(entry, value, fault):
    batch = THREE_WAY.repeat(4, 1, 1)
    batch[2, 1] = value
    with pytest.raises(InputError, match=rf"branches\[2, 1\] {fault}"):
        entry(batch, MergeConfig())


@pytest.mark.parametrize("entry", [merge_branches, pluralistic_weights])
def test_a_name_alone_is_no_config(entry):
    with pytest.raises(InputError, match="the merge is 'mixture': it must be of class MergeConfig"):
        entry(THREE_WAY, "mixture")
