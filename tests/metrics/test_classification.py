import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    confusion_matrix,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from saepd.common.errors import InputError
from saepd.metrics import classification

RAGGED = [[0.7, 0.3], [0.2, 0.5, 0.3], [0.1, 0.2, 0.3, 0.4]]


def examples(**strategies):
    """As given, with few examples: a bootstrap takes its time."""
    return lambda test: settings(max_examples=25)(given(**strategies)(test))


def random_answers(seed, n=200, options=4):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(options), size=n), rng.integers(options, size=n)


def random_scores(seed, n=60, values=None):
    """Scores and labels of both classes; few different values make many ties."""
    rng = np.random.default_rng(seed)
    labels = np.append(rng.integers(2, size=n - 2), [0, 1])
    scores = rng.random(n) if values is None else rng.integers(values, size=n) / values
    return scores, labels


tied_or_not = {"seed": st.integers(0, 2**32 - 1), "values": st.sampled_from([None, 2, 5])}


# --- over options ---


def test_accuracy_counts_the_most_probable_option():
    np.testing.assert_array_equal(classification.accuracy(RAGGED, [0, 2, 3]), [1, 0, 1])


def test_tied_options_share_the_credit():
    np.testing.assert_array_equal(classification.accuracy([[0.5, 0.5]] * 2, [0, 1]), [0.5, 0.5])
    tied = classification.accuracy([[0.4, 0.4, 0.2]] * 3, [0, 1, 2])
    np.testing.assert_array_equal(tied, [0.5, 0.5, 0])


# --- with a positive class ---


@examples(**tied_or_not, threshold=st.floats(0, 1))
def test_scores_at_a_threshold_are_sklearns(seed, values, threshold):
    scores, labels = random_scores(seed, values=values)
    predicted = scores >= threshold
    expected = {
        "binary_macro_f1": f1_score(labels, predicted, average="macro"),
        "positive_f1": f1_score(labels, predicted),
        "precision": precision_score(labels, predicted, zero_division=0),
        "recall": recall_score(labels, predicted),
        "false_positive_rate": 1 - recall_score(labels, predicted, pos_label=0),
    }
    for name, value in expected.items():
        found = getattr(classification, name)(scores, labels, threshold=threshold)
        assert found == pytest.approx(value), name


def test_scores_at_a_half_by_hand():
    # Two true positives, one missed, one false, one left alone.
    scores, labels = [0.9, 0.5, 0.4, 0.6, 0.1], [1, 1, 1, 0, 0]
    assert confusion_matrix(labels, np.array(scores) >= 0.5).tolist() == [[1, 1], [1, 2]]
    assert classification.precision(scores, labels) == pytest.approx(2 / 3)
    assert classification.recall(scores, labels) == pytest.approx(2 / 3)
    assert classification.positive_f1(scores, labels) == pytest.approx(2 / 3)
    assert classification.binary_macro_f1(scores, labels) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert classification.false_positive_rate(scores, labels) == 0.5


def test_nobody_predicted_positive():
    assert classification.precision([0.1, 0.2], [1, 0]) == 0
    assert classification.positive_f1([0.1, 0.2], [1, 0]) == 0


@examples(**tied_or_not)
def test_auroc_is_sklearns_and_the_share_of_pairs_in_order(seed, values):
    scores, labels = random_scores(seed, values=values)
    found = classification.auroc(scores, labels)
    assert found == pytest.approx(roc_auc_score(labels, scores))
    above = scores[labels == 1][:, None] - scores[labels == 0]
    assert found == pytest.approx(((above > 0) + (above == 0) / 2).mean())


def test_auroc_of_a_constant_is_a_half():
    assert classification.auroc([0.3] * 4, [True, False, False, True]) == 0.5


@examples(**tied_or_not, recall=st.floats(0.01, 1))
def test_false_positive_rate_at_recall_is_the_lowest_of_sklearns_curve(seed, values, recall):
    scores, labels = random_scores(seed, values=values)
    false, true, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    enough = true >= recall - 1e-9
    found = classification.false_positive_rate_at_recall(scores, labels, recall)
    assert found == pytest.approx(false[enough].min())
    threshold = classification.threshold_at_recall(scores, labels, recall)
    assert threshold in thresholds
    assert (scores[labels == 1] >= threshold).mean() >= recall - 1e-9


def test_negatives_that_tie_with_the_threshold_are_false_positives():
    scores, labels = [0.9, 0.5, 0.5, 0.5, 0.1], [1, 1, 0, 0, 0]
    assert classification.threshold_at_recall(scores, labels, 0.5) == 0.9
    assert classification.false_positive_rate_at_recall(scores, labels, 0.5) == 0
    assert classification.threshold_at_recall(scores, labels, 0.51) == 0.5
    assert classification.false_positive_rate_at_recall(scores, labels, 0.51) == pytest.approx(
        2 / 3
    )


def test_a_recall_that_the_positives_reach_exactly_is_reached():
    scores, labels = np.arange(20) / 20, [0] * 10 + [1] * 10
    for tenths in range(1, 11):
        expected = scores[20 - tenths]
        found = classification.threshold_at_recall(scores, labels, tenths * 0.1)
        assert found == expected


@examples(**tied_or_not)
def test_the_order_of_questions_does_not_matter(seed, values):
    scores, labels = random_scores(seed, values=values)
    order = np.random.default_rng(seed).permutation(len(scores))
    for metric in (
        classification.binary_macro_f1,
        classification.auroc,
        lambda s, y: classification.false_positive_rate_at_recall(s, y, 0.8),
    ):
        value = metric(scores, labels)
        assert 0 <= value <= 1
        assert metric(scores[order], labels[order]) == pytest.approx(value)


# --- by functionality ---


def test_each_functionality_counts_once():
    scores, labels = [0.9, 0.5, 0.1, 0.9], [1, 1, 1, 0]
    kinds = ["slur", "slur", "slur", "reclaimed"]
    of_each = classification.accuracy_by_functionality(scores, labels, kinds)
    assert of_each == {"slur": pytest.approx(2 / 3), "reclaimed": 0}
    assert list(of_each) == ["slur", "reclaimed"]
    with pytest.raises(InputError, match="4 entries and functionalities 1"):
        classification.accuracy_by_functionality(scores, labels, ["slur"])


# --- errors at the door ---


def test_one_class_only():
    scores = [0.2, 0.8]
    for metric in (classification.auroc, classification.binary_macro_f1):
        with pytest.raises(InputError, match=r"all labels are positive: .* needs both classes"):
            metric(scores, [1, 1])
        with pytest.raises(InputError, match="all labels are negative"):
            metric(scores, [0, 0])
    for metric in (
        classification.recall,
        classification.positive_f1,
        lambda s, y: classification.threshold_at_recall(s, y, 0.9),
    ):
        with pytest.raises(InputError, match="no label is positive"):
            metric(scores, [0, 0])
    for metric in (
        classification.false_positive_rate,
        lambda s, y: classification.false_positive_rate_at_recall(s, y, 0.9),
    ):
        with pytest.raises(InputError, match="no label is negative"):
            metric(scores, [1, 1])


def test_what_is_no_score_no_label_or_no_recall():
    with pytest.raises(InputError, match=r"scores\[1\] is nan"):
        classification.auroc([0.1, float("nan")], [0, 1])
    with pytest.raises(InputError, match=r"labels\[1\] is 2: expected 1 \(positive\) or 0"):
        classification.precision([0.1, 0.2], [0, 2])
    with pytest.raises(InputError, match="scores has 2 entries and labels 1"):
        classification.recall([0.1, 0.2], [1])
    with pytest.raises(InputError, match=r"scores has shape \(0,\)"):
        classification.precision([], [])
    for recall in (0.0, 1.1, float("nan")):
        with pytest.raises(InputError, match="above 0 and at most 1"):
            classification.threshold_at_recall([0.1, 0.2], [0, 1], recall)
