import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax

from saepd.common.errors import InputError
from saepd.merge import weights as weights_module
from saepd.merge.weights import fit_merge_weights

EVEN = np.log([0.5, 0.5])


def answers_of(mixture, n, seed=0, n_options=4, spread=2.0):
    """What three perspectives say of some questions, and one answer to each by their mixture."""
    rng = np.random.default_rng(seed)
    branches = log_softmax(rng.normal(scale=spread, size=(n, 3, n_options)), axis=-1)
    shares = np.einsum("k,nko->no", np.asarray(mixture), np.exp(branches))
    answers = np.stack([np.eye(n_options)[rng.choice(n_options, p=p / p.sum())] for p in shares])
    return list(branches), list(answers), list(range(n))


def test_the_weights_of_many_answers_are_those_that_they_were_made_with():
    found = fit_merge_weights(*answers_of([0.7, 0.3, 0.0], 3000))
    assert sum(found) == pytest.approx(1)
    np.testing.assert_allclose(found, [0.7, 0.3, 0.0], atol=0.05)


@pytest.mark.parametrize("given", [[0.2, 0.3, 0.5], [1 / 3] * 3])
@pytest.mark.parametrize("between", [False, True])
def test_the_weights_minimise_the_loss_with_its_prior(monkeypatch, given, between):
    branches, answers, questions = answers_of([0.6, 0.3, 0.1], 200)
    if between:
        # From equal weights the first step moves the others, and not the one that is their mean.
        branches = [np.log([*np.exp(p[:2]), np.exp(p[:2]).mean(0)]) for p in branches]
    given, worth = np.array(given), 10.0
    monkeypatch.setattr(weights_module, "_WORTH", (worth,))
    found = np.array(fit_merge_weights(branches, answers, questions, list(given)))

    def loss(w):
        likelihood = [t @ np.log(np.exp(p).T @ w) for p, t in zip(branches, answers, strict=True)]
        return -sum(likelihood) - worth * given @ np.log(w)

    best = minimize(
        loss,
        given,
        bounds=[(1e-6, 1)] * 3,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-12, "maxiter": 500},
    )
    np.testing.assert_allclose(found, best.x, atol=1e-3)


def test_given_shares_stay_where_answers_ask_for_no_others():
    shares = [0.5, 0.3, 0.2]
    assert fit_merge_weights(*answers_of(shares, 40), shares) == pytest.approx(tuple(shares))
    branches, answers, questions = answers_of([1, 0, 0], 4)
    assert fit_merge_weights(branches, answers, questions) == pytest.approx((1 / 3,) * 3)


def test_four_questions_decide_nothing_however_many_answer_them():
    branches, answers, questions = answers_of([1, 0, 0], 5)
    many = [1000 * answer for answer in answers]
    few = fit_merge_weights(branches[:4], many[:4], questions[:4])
    assert few == pytest.approx((1 / 3,) * 3)
    assert max(fit_merge_weights(branches, many, questions)) > 0.5


def test_every_question_is_foretold_from_the_others():
    branches, answers, questions = answers_of([1, 0, 0], 100)
    # Where all perspectives say the same, their answers are for none of them.
    branches[:60] = [p[:1].repeat(3, axis=0) for p in branches[:60]]
    assert fit_merge_weights(branches, answers, questions)[0] > 0.6


def test_an_answer_that_no_perspective_allows_is_for_none_of_them():
    branches, answers, questions = answers_of([0.7, 0.3, 0.0], 100)
    with np.errstate(divide="ignore"):
        sure = np.log(np.eye(4)[[0, 0, 0]])
    found = fit_merge_weights([*branches, sure], [*answers, np.eye(4)[1]], [*questions, 100])
    np.testing.assert_allclose(found, fit_merge_weights(branches, answers, questions), atol=0.02)


def test_counts_are_as_many_answers():
    branches, answers, questions = answers_of([0.8, 0.2, 0.0], 400)
    twice = fit_merge_weights(branches * 2, answers * 2, questions * 2)
    counted = fit_merge_weights(branches, [2 * a for a in answers], questions)
    np.testing.assert_allclose(counted, twice, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log_probs": []}, "0 rows of log-probs, 2 of answers and 2 questions"),
        ({"questions": [0]}, "2 rows of log-probs, 2 of answers and 1 questions"),
        ({"log_probs": [[EVEN] * 2, [EVEN] * 3]}, "row 1 is of 3 perspectives, and the first is"),
        ({"log_probs": [[[0.0, 0.0]] * 2] * 2}, "row 0 holds no log-probs: apply log_softmax"),
        ({"log_probs": [[EVEN] * 2] * 2, "answers": [[1, 0, 0]] * 2}, "shape"),
        ({"answers": [[0, 0]] * 2}, "give how many chose each option"),
        ({"answers": [[1, np.inf]] * 2}, "give how many chose each option"),
        ({"answers": [[1, -1]] * 2}, "give how many chose each option"),
        ({"shares": [0.5, 0.2]}, "give one for each of 2, summing to 1"),
        ({"shares": [1.0]}, "give one for each of 2"),
        ({"answers": 5}, "answers are 5: give a list"),
        ({"questions": [["a"], ["b"]]}, "names no question: give its id"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    given = {
        "log_probs": [[EVEN] * 2] * 2,
        "answers": [[1, 0]] * 2,
        "questions": [0, 1],
        "shares": None,
    } | change
    with pytest.raises(InputError, match=message):
        fit_merge_weights(**given)
