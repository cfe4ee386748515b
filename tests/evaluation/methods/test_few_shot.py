from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax

from saepd.common.errors import InputError
from saepd.evaluation.methods.few_shot import examples, few_shot
from saepd.feedback.targets import answered
from saepd.models.tokens import prompt_ids


def worded(row):
    option = row.options[int(answered(row).argmax())]
    return f"A survey asked: {row.prompt}\nMost people answered: {option}\n\n"


def test_examples_are_the_feedback_in_its_order_as_many_as_fit(opinion_fold):
    rows = opinion_fold.rows("north")
    parts = [worded(row) for row in rows]
    lengths = [len(prompt_ids(opinion_fold.model.tokenizer, part)) for part in parts]
    for n in (1, 2, len(rows)):
        room = sum(lengths[:n])
        assert examples(replace(opinion_fold, few_shot_tokens=room), rows) == "".join(parts[:n])
        less = replace(opinion_fold, few_shot_tokens=room - 1)
        if n > 1:
            assert examples(less, rows) == "".join(parts[: n - 1])
        else:
            with pytest.raises(InputError, match=f"not one example fits into {room - 1} tokens"):
                few_shot(less)


def test_options_are_scored_as_in_the_whole_text(opinion_fold):
    model, tokenizer = opinion_fold.model, opinion_fold.model.tokenizer
    found = few_shot(opinion_fold)
    assert set(found) == set(opinion_fold.asked)
    for (id_, name), probabilities in found.items():
        item = opinion_fold.task.by_id[id_]
        shown = examples(opinion_fold, opinion_fold.rows(name))
        assert 1 <= shown.count("\n\n") < 6
        text = shown + f"A survey asked: {item.prompt}\nMost people answered:"
        scores = []
        for option in item.options:
            before = prompt_ids(tokenizer, text)
            after = tokenizer(f" {option}", add_special_tokens=False).input_ids
            with torch.no_grad():
                log_probs = model(torch.tensor([before + after]))[0].log_softmax(-1)
            rows = log_probs[len(before) - 1 : -1]
            scores.append(float(rows.gather(1, torch.tensor(after)[:, None]).sum()))
        np.testing.assert_allclose(probabilities, softmax(scores), atol=2e-3)


def test_examples_change_the_answer(opinion_fold):
    turned = tuple(
        row.model_copy(update={"distribution": row.distribution[::-1]})
        for row in opinion_fold.feedback
    )
    found, other = few_shot(opinion_fold), few_shot(replace(opinion_fold, feedback=turned))
    assert any(np.abs(found[pair] - other[pair]).max() > 1e-3 for pair in found)
