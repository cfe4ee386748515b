import numpy as np
import torch

from saepd.evaluation.example import most_divided
from saepd.evaluation.methods.nulls import POOLED_RIDGE, fit_biases, read_biased
from saepd.evaluation.methods.steered import mean_differences
from saepd.merge.config import MergeConfig
from saepd.merge.operators import merge_branches


def test_the_most_divided_question_is_shown_as_every_branch_and_the_merge_read_it(
    opinion_fold, opinions
):
    steered = mean_differences(opinion_fold)["selected"]
    merge = MergeConfig("mixture")
    example = most_divided(opinion_fold, steered, opinions, merge)
    spreads = {
        id_: max(np.abs(np.subtract(*opinions.by_id[id_].distributions.values())))
        for id_ in opinion_fold.test
    }
    assert example.item == opinions.by_id[max(spreads, key=spreads.get)]
    base = fit_biases(opinion_fold, opinion_fold.feedback, POOLED_RIDGE)
    expected = {"base": read_biased(steered.scores[example.item.id][0], base)}
    expected |= {p: steered.probabilities(example.item.id, p) for p in opinion_fold.perspectives}
    assert example.branches.keys() == expected.keys()
    for name, p in expected.items():
        np.testing.assert_allclose(example.branches[name], p, atol=1e-9)
    log_probs = torch.tensor(np.stack(list(expected.values()))).log()
    np.testing.assert_allclose(example.merged, merge_branches(log_probs, merge).exp(), atol=1e-6)
    told = example.to_dict()
    assert told["people"] == {p: list(v) for p, v in example.item.distributions.items()}
    assert (told["item"], told["prompt"]) == (example.item.id, example.item.prompt)
