import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy
from sklearn.metrics import mutual_info_score

from saepd.common.errors import InputError
from saepd.uncertainty.config import EpistemicConfig
from saepd.uncertainty.epistemic import epistemic_uncertainty, sampled_epistemic_uncertainty


@st.composite
def answers(draw):
    """A first distribution and what follows each option, some of it impossible."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(2, 6))
    spread = draw(st.sampled_from([0.05, 1.0, 20.0]))

    def distribution():
        p = rng.dirichlet(np.full(n, spread)) * (rng.random(n) < 0.8)
        return p / p.sum() if p.sum() > 0 else np.eye(n)[0]

    return distribution(), np.stack([distribution() for _ in range(n)]), rng


everything = settings(deadline=None, max_examples=100)


# --- closed options ---


def test_a_model_that_copies_its_prompt_knows_nothing():
    assert epistemic_uncertainty([0.5, 0.5], np.eye(2)) == pytest.approx(math.log(2))
    assert epistemic_uncertainty([0.25] * 4, np.eye(4)[[1, 0, 3, 2]]) == pytest.approx(math.log(4))
    # It can be led only as far as it is unsure to begin with.
    assert epistemic_uncertainty([0.9, 0.1], np.eye(2)) == pytest.approx(entropy([0.9, 0.1]))
    assert epistemic_uncertainty([1.0, 0.0], np.eye(2)) == 0


@pytest.mark.parametrize("mu1", [[0.5, 0.5], [0.99, 0.01]])
def test_a_model_that_ignores_its_prompt_knows_however_many_answers_it_has(mu1):
    for answer in ([0.5, 0.5], [0.99, 0.01], [1.0, 0.0]):
        assert epistemic_uncertainty(mu1, [answer, answer]) == pytest.approx(0, abs=1e-12)


def test_by_hand():
    # Joint .5 * (.8, .2), .5 * (.4, .6); the second answer is (.6, .4) overall.
    expected = (
        0.4 * math.log(0.8 / 0.6)
        + 0.1 * math.log(0.2 / 0.4)
        + 0.2 * math.log(0.4 / 0.6)
        + 0.3 * math.log(0.6 / 0.4)
    )
    found = epistemic_uncertainty([0.5, 0.5], [[0.8, 0.2], [0.4, 0.6]])
    assert found == pytest.approx(expected)


@everything
@given(answers())
def test_it_is_the_mutual_information_of_the_joint_distribution(data):
    mu1, mu2, _ = data
    joint = mu1[:, None] * mu2
    expected = entropy(mu1) + entropy(joint.sum(0)) - entropy(joint.ravel())
    assert epistemic_uncertainty(mu1, mu2) == pytest.approx(expected, abs=1e-9)


def test_it_is_sklearns_mutual_information_of_counts():
    counts = np.random.default_rng(0).integers(1, 50, size=(4, 4))
    mu1, mu2 = counts.sum(1) / counts.sum(), counts / counts.sum(1, keepdims=True)
    expected = mutual_info_score(None, None, contingency=counts)
    assert epistemic_uncertainty(mu1, mu2) == pytest.approx(expected)


@everything
@given(answers())
def test_it_is_at_most_the_entropy_of_either_answer_and_blind_to_the_order_of_options(data):
    mu1, mu2, rng = data
    found = epistemic_uncertainty(mu1, mu2)
    assert 0 <= found <= min(entropy(mu1), entropy(mu1 @ mu2)) + 1e-9
    assert found <= math.log(len(mu1)) + 1e-9
    order = rng.permutation(len(mu1))
    assert epistemic_uncertainty(mu1[order], mu2[order][:, order]) == pytest.approx(found, abs=1e-9)


@everything
@given(answers(), st.floats(0.01, 1))
def test_mass_outside_the_options_is_scaled_away(data, share):
    mu1, mu2, rng = data
    held = share * rng.uniform(0.1, 1, size=(len(mu1), 1))
    found = epistemic_uncertainty(share * mu1, held * mu2)
    assert found == pytest.approx(epistemic_uncertainty(mu1, mu2), abs=1e-9)


def test_what_are_no_answers_to_options():
    with pytest.raises(InputError, match=r"1 option\(s\)"):
        epistemic_uncertainty([1.0], [[1.0]])
    with pytest.raises(InputError, match=r"mu2 has shape \(1, 2\): expected \(2, 2\)"):
        epistemic_uncertainty([0.5, 0.5], [[0.5, 0.5]])
    with pytest.raises(InputError, match="mu1 has 2 dimension"):
        epistemic_uncertainty(np.eye(2), np.eye(2))
    with pytest.raises(InputError, match="mu2 has a row that is all 0"):
        epistemic_uncertainty([0.5, 0.5], [[0.5, 0.5], [0.0, 0.0]])
    with pytest.raises(InputError, match="mu1 has a row that is all 0"):
        epistemic_uncertainty([0.0, 0.0], np.eye(2))
    for bad in ([0.5, math.nan], [math.inf, 0], [-math.inf, 1], [-0.1, 1.1], [0.9, 0.9]):
        with pytest.raises(InputError, match="mu2 holds no probabilities"):
            epistemic_uncertainty([0.5, 0.5], [bad, [0, 1]])


# --- sampled responses ---


def logs(values):
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(values, dtype=float))


def paper_example():
    """The appendix on algorithm 3; the rows it leaves out are made up, and one is never read."""
    responses = ["London", "London", "London, UK", "Paris", "Berlin"]
    first = logs([0.5, 0.5, 0.2, 0.1, 0.05])
    second = logs(
        [
            [0.6, 0.6, 0.15, 0.05, 0.04],
            [math.nan] * 5,
            [math.nan] * 5,
            [0.3, 0.3, 0.1, 0.5, 0.05],
            [0.3, 0.3, 0.1, 0.1, 0.3],
        ]
    )
    return responses, first, second


def test_the_papers_example():
    # Step 4 of the appendix: .7, .1, .05 and, after London, .75, .05, .04; then scaled to 1.
    after = [[0.75, 0.05, 0.04], [0.4, 0.5, 0.05], [0.4, 0.1, 0.3]]
    expected = epistemic_uncertainty(np.array([0.7, 0.1, 0.05]) / 0.85, after)
    assert sampled_epistemic_uncertainty(*paper_example()) == pytest.approx(expected)


def test_gammas_enter_as_in_step_six():
    mu1 = np.array([0.7, 0.1, 0.05]) / 0.85
    mu2 = np.array([[0.75, 0.05, 0.04], [0.4, 0.5, 0.05], [0.4, 0.1, 0.3]])
    mu2 = mu2 / mu2.sum(1, keepdims=True)
    expected = sum(
        mu1[i] * mu2[i, t] * math.log((mu1[i] * mu2[i, t] + 0.2) / (mu1[i] * (mu1 @ mu2)[t] + 0.3))
        for i in range(3)
        for t in range(3)
    )
    config = EpistemicConfig(gamma1=0.2, gamma2=0.3)
    found = sampled_epistemic_uncertainty(*paper_example(), config)
    assert found == pytest.approx(expected)


def test_a_gamma_alone_may_take_the_estimate_below_zero():
    even = np.log(np.full((2, 2), 0.5))
    config = EpistemicConfig(gamma2=0.3)
    found = sampled_epistemic_uncertainty(["red", "blue"], even[0], even, config)
    assert found == pytest.approx(math.log(0.25 / 0.55))


@everything
@given(answers())
def test_answers_that_share_no_word_are_options(data):
    mu1, mu2, rng = data
    names = ["red", "blue", "green", "white", "black", "brown"][: len(mu1)]
    found = sampled_epistemic_uncertainty(names, logs(mu1), logs(mu2))
    assert found == pytest.approx(epistemic_uncertainty(mu1, mu2), abs=1e-9)
    assert 0 <= found <= math.log(len(mu1)) + 1e-9
    again = rng.integers(len(mu1), size=4)
    rows = np.concatenate([np.arange(len(mu1)), again])
    repeated = sampled_epistemic_uncertainty(
        [names[i] for i in rows], logs(mu1)[rows], logs(mu2)[rows][:, rows]
    )
    assert repeated == pytest.approx(found, abs=1e-9)


def test_texts_too_long_for_a_float_and_samples_that_agree():
    names = ["red", "blue"]
    far = np.log(np.array([[0.8, 0.2], [0.4, 0.6]])) - 5000
    found = sampled_epistemic_uncertainty(names, [-5000.0, -5000.0], far)
    assert found == pytest.approx(epistemic_uncertainty([0.5, 0.5], [[0.8, 0.2], [0.4, 0.6]]))
    assert sampled_epistemic_uncertainty(["red", "Red."], [-1.0, -2.0], -np.ones((2, 2))) == 0


def test_the_papers_settings_are_the_defaults():
    config = EpistemicConfig()
    assert (config.n_samples, config.temperature, config.similarity) == (10, 0.9, 0.25)
    assert (config.gamma1, config.gamma2) == (0, 0)


def test_what_are_no_samples():
    names, flat = ["red", "blue"], np.log(np.full((2, 2), 0.5))
    with pytest.raises(InputError, match="at least two samples"):
        sampled_epistemic_uncertainty(["red"], [0.0], [[0.0]])
    with pytest.raises(InputError, match=r"responses\[1\] is empty"):
        sampled_epistemic_uncertainty(["red", " "], flat[0], flat)
    with pytest.raises(InputError, match=r"log_probs has shape \(3,\): expected \(2,\)"):
        sampled_epistemic_uncertainty(names, [0.0] * 3, flat)
    with pytest.raises(InputError, match="conditional_log_probs has shape"):
        sampled_epistemic_uncertainty(names, flat[0], flat[:1])
    with pytest.raises(InputError, match=r"conditional_log_probs\[1\] is .*: expected log-probs"):
        sampled_epistemic_uncertainty(names, flat[0], logs([[0.5, 0.5], [0.0, 0.0]]))
    for bad in ([0.5, 0.5], [math.nan, -1.0]):
        with pytest.raises(InputError, match=r"^log_probs is"):
            sampled_epistemic_uncertainty(names, bad, flat)


@pytest.mark.parametrize(
    "numbers",
    [
        {"n_samples": 1},
        {"temperature": 0.0},
        {"similarity": 0.0},
        {"similarity": 1.1},
        {"gamma1": -0.1},
        {"gamma2": math.inf},
    ],
)
def test_settings_out_of_range(numbers):
    with pytest.raises(InputError, match=next(iter(numbers))):
        EpistemicConfig(**numbers)
