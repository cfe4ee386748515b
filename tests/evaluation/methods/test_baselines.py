import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saepd.common.errors import InputError
from saepd.evaluation.methods.baselines import few_shot_prefix, few_shot_scores, train_mean, uniform
from saepd.feedback.schema import Feedback, Item
from saepd.feedback.targets import answered
from saepd.models.prompts import item_prompt, prompt_ids
from saepd.models.wording import ReadoutConfig

PLAIN = ReadoutConfig()
TWO, THREE = ("Yes", "No"), ("More", "Less", "Same")


def row(i, options=TWO, perspective="ours", **said):
    said = said or {"answer": options[0]}
    return Feedback(id=f"r{i}", perspective=perspective, prompt=f"Q{i}?", options=options, **said)


def item(i, options=TWO):
    return Item(id=f"i{i}", prompt=f"And {i}?", options=options)


# --- uniform and the mean ---


@pytest.mark.parametrize("n", [2, 3, 7])
def test_uniform_is_the_same_for_every_option(n):
    found = uniform(item(0, tuple(map(str, range(n)))))
    assert found.tolist() == [1 / n] * n


def test_what_a_row_says_as_a_distribution():
    assert answered(row(0, answer="No")).tolist() == [0, 1]
    assert answered(row(0, THREE, answer="Same")).tolist() == [0, 0, 1]
    assert answered(row(0, THREE, distribution=(0.2, 0.3, 0.5))).tolist() == [0.2, 0.3, 0.5]
    # Shares say more than the one answer that may stand next to them.
    assert answered(row(0, answer="No", distribution=(0.6, 0.4))).tolist() == [0.6, 0.4]
    for silent in (row(0, comment="Well."), row(0, (), answer="Well.")):
        with pytest.raises(InputError, match="feedback 'r0' has no answer among options"):
            answered(silent)


def test_the_mean_is_of_the_perspectives_own_rows_with_as_many_options():
    rows = [
        row(0, answer="Yes"),
        row(1, answer="No"),
        row(2, distribution=(0.8, 0.2)),
        row(3, THREE, answer="Less"),
        row(4, perspective="theirs", answer="No"),
    ]
    np.testing.assert_allclose(train_mean(rows, "ours", item(0)), [1.8 / 3, 1.2 / 3])
    np.testing.assert_allclose(train_mean(rows, "ours", item(0, THREE)), [0, 1, 0])
    np.testing.assert_allclose(train_mean(rows, "theirs", item(0)), [0, 1])
    for perspective, options in (("theirs", THREE), ("nobody", TWO)):
        found = train_mean(rows, perspective, item(0, options))
        assert found.tolist() == uniform(item(0, options)).tolist()


@settings(deadline=None, max_examples=50)
@given(
    answers=st.lists(st.sampled_from(THREE), min_size=1, max_size=12),
    random=st.randoms(use_true_random=False),
)
def test_the_mean_counts_every_answer_once(answers, random):
    rows = [row(i, THREE, answer=answer) for i, answer in enumerate(answers)]
    random.shuffle(rows)
    counts = [answers.count(option) for option in THREE]
    found = train_mean(rows, "ours", item(0, THREE))
    np.testing.assert_allclose(found, np.array(counts) / len(answers), atol=1e-12)


# --- few-shot prompts ---


def examples(model, rows):
    return [
        f"{item_prompt(model, r.prompt, r.options, PLAIN)} "
        f"{r.options[int(answered(r).argmax())]}\n\n"
        for r in rows
    ]


def test_examples_are_the_feedback_in_its_order(llama):
    rows = [row(0, answer="No"), row(1, THREE, distribution=(0.1, 0.3, 0.6))]
    prefix, n = few_shot_prefix(llama, rows, PLAIN, 1000)
    assert prefix == "".join(examples(llama, rows))
    assert prefix.startswith("A survey asked: Q0?\nMost people answered: No\n\nA survey asked: Q1?")
    assert prefix.endswith("answered: Same\n\n")
    assert n == 2


def test_as_many_examples_as_fit_are_shown(llama):
    rows = [row(i, answer="No") for i in range(5)]
    parts = examples(llama, rows)
    lengths = [len(prompt_ids(llama.tokenizer, part)) for part in parts]
    for n in (1, 2, 4, 5):
        assert few_shot_prefix(llama, rows, PLAIN, sum(lengths[:n])) == ("".join(parts[:n]), n)
        if n > 1:
            less = few_shot_prefix(llama, rows, PLAIN, sum(lengths[:n]) - 1)
            assert less == ("".join(parts[: n - 1]), n - 1)
    with pytest.raises(InputError, match=f"not one example fits into {lengths[0] - 1} tokens"):
        few_shot_prefix(llama, rows, PLAIN, lengths[0] - 1)
    with pytest.raises(InputError, match="not one example fits into 100 tokens: allow more"):
        few_shot_prefix(llama, [], PLAIN, 100)


def test_examples_need_answers(llama):
    with pytest.raises(InputError, match="'r0' has no answer among options"):
        few_shot_prefix(llama, [row(0, comment="Well.")], PLAIN, 100)


def test_scores_are_those_of_the_whole_text(llama):
    rows = [row(0, answer="No"), row(1, THREE, answer="Less"), row(2)]
    items = [item(0), item(1, THREE)]
    scores, n = few_shot_scores(llama, rows, items, PLAIN, 110)
    assert n == 2
    assert [len(s) for s in scores] == [2, 3]
    prefix = "".join(examples(llama, rows[:2]))
    for its, found in zip(items, scores, strict=True):
        expected = []
        for option in its.options:
            before = prompt_ids(
                llama.tokenizer, prefix + item_prompt(llama, its.prompt, its.options, PLAIN)
            )
            after = llama.tokenizer(f" {option}", add_special_tokens=False).input_ids
            with torch.no_grad():
                log_probs = llama(torch.tensor([before + after]))[0].log_softmax(-1)
            rows_of = log_probs[len(before) - 1 : -1]
            expected.append(float(rows_of.gather(1, torch.tensor(after)[:, None]).sum()))
        # What an item's options share, such as its question, may be in the scores or not.
        torch.testing.assert_close(
            found.float().log_softmax(-1),
            torch.tensor(expected).log_softmax(-1),
            atol=2e-3,
            rtol=1e-3,
        )


def test_examples_change_the_scores(llama):
    items = [item(0), item(1, THREE)]
    found = [
        few_shot_scores(llama, [row(0, answer=answer)], items, PLAIN, 100)[0] for answer in TWO
    ]
    for one, other in zip(*found, strict=True):
        assert (one.log_softmax(-1) - other.log_softmax(-1)).abs().max() > 1e-3


@pytest.mark.parametrize("config", [ReadoutConfig("letter"), ReadoutConfig("text", "chat")])
def test_other_readouts_are_refused(llama, config):
    with pytest.raises(InputError, match="few-shot prompts need the text readout in plain style"):
        few_shot_scores(llama, [row(0)], [item(0)], config, 100)
