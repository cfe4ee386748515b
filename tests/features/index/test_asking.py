from math import comb

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from saepd.features.index.asking import (
    detect,
    detection_prompt,
    label_prompt,
    marked,
    read_label,
    read_numbers,
)
from saepd.features.index.latent_page import Context


def context(tokens, activations):
    return Context("top", tokens, activations, int(np.argmax(activations)))


def test_strong_tokens_are_marked_in_one_piece_each():
    tokens = ["The", " mon", "ey", " of", " the", " bank", "."]
    assert marked(context(tokens, [0, 4, 9, 0.1, 0, 3, 0])) == "The <<money>> of the <<bank>>."
    assert marked(context(tokens, [1, 0, 0, 0, 0, 0, 1])) == "<<The>> money of the bank<<.>>"
    # What fires at less than three tenths of the strongest is left as it is.
    assert marked(context(tokens, [2.9, 10, 3, 0, 0, 0, 0])) == "The <<money>> of the bank."


def test_prompts_number_excerpts_one_a_line():
    contexts = [context(["a\n", "b"], [0, 1.0]), context([" c"], [2.0])]
    prompt = label_prompt(contexts, ["tax", ' "x"\n'])
    assert "\n1. a <<b>>\n2. <<c>>\n" in prompt
    assert 'likelier: "tax", " \\"x\\"\\n"\n' in prompt
    assert "likelier" not in label_prompt(contexts, [])
    asked = detection_prompt("the sea", ["one\ntwo", "three"])
    assert "\nLabel: the sea\n" in asked
    assert "\n1. one two\n2. three\n" in asked
    assert "<<" not in asked


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("the sea", "the sea"),
        (' "The sea."\n', "The sea."),
        ("Label: the sea", "the sea"),
        ("**Label:** the sea", "the sea"),
        ("<think>ships?\nwaves</think>\n\nthe sea", "the sea"),
        ("Sorry and other apologies", "Sorry and other apologies"),
        ("I, me and my", "I, me and my"),
        ("x\x1b[2J\x07y", "x[2Jy"),
        ("אותיות", "אותיות"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
    ],
)
def test_a_label_is_read(answer, label):
    assert read_label(answer) == (label, "")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "is empty"),
        (" \n'' ", "is empty"),
        ("\x1b", "is empty"),
        ("<think>and so on, until it was cut", "is empty"),
        ("the sea\nand ships", "several lines"),
        ("x" * 2000, "2000 characters"),
        ("I'm sorry, but I can't help with that.", "would not answer"),
        ("I\u2019m sorry, I cannot", "would not answer"),
        ("As an AI language model", "would not answer"),
    ],
)
def test_what_is_no_label_is_left(answer, why):
    label, note = read_label(answer)
    assert label == ""
    assert why in note


@pytest.mark.parametrize(
    ("answer", "numbers"),
    [
        ("1, 3 and 12", {0, 2, 11}),
        ("[1,3]", {0, 2}),
        ("Answer: 2.", {1}),
        ("3\n5\n", {2, 4}),
        ("<think>1, 2?</think>4", {3}),
        ("none", set()),
        ("None.", set()),
        ("", None),
        ("0", None),
        ("13", None),
        ("9" * 5000, None),
        ("all but 3", None),
        ("1. The sea, 2. ships", None),
        ("and", None),
        ("-1", None),
    ],
)
def test_numbers_are_read_or_not_at_all(answer, numbers):
    assert read_numbers(answer, 12) == numbers


def test_a_score_by_hand():
    fires = np.arange(20) < 10
    said, said_other = np.arange(20) < 9, np.arange(20) % 2 == 0
    found = detect(said == fires, said_other == fires, other=7)
    assert found.value == pytest.approx(balanced_accuracy_score(fires, said)) == 0.95
    assert found.null == pytest.approx(balanced_accuracy_score(fires, said_other)) == 0.5
    assert (found.n, found.null_of) == (20, 7)
    # Clopper and Pearson: at the lower end 19 or more of 20 are told right once in forty times, at
    # the upper end 19 or fewer.
    low, high = found.low, found.high
    assert 20 * low**19 * (1 - low) + low**20 == pytest.approx(0.025)
    assert 1 - high**20 == pytest.approx(0.025)
    # Ten told right by one alone, of which nine by this label, and one by the other alone.
    gained = ((said == fires) & (said_other != fires)).sum()
    lost = ((said != fires) & (said_other == fires)).sum()
    n = gained + lost
    tail = sum(comb(int(n), k) for k in range(int(gained), int(n) + 1)) / 2**n
    assert found.p == pytest.approx(float(tail))
    assert found.better


def test_a_label_that_tells_as_much_as_the_other_is_no_better():
    right = np.arange(16) < 8
    for other in (right, ~right):
        found = detect(right, other, other=1)
        assert found.value == found.null == 0.5
        assert found.low < 0.5 < found.high
        assert found.p >= 0.5
        assert not found.better
    assert "no better" in str(found)
