import numpy as np

from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.directions.fitted_readout import FittedReadout
from saepd.evaluation.example import most_divided
from saepd.merge.config import MergeConfig
from saepd.merge.operators import merge_branches
from saepd.readout.options import read_options


def test_the_most_divided_question_is_shown_as_every_branch_and_the_merge_read_it(
    opinion_fold, opinions
):
    fold, merge = opinion_fold, MergeConfig("mixture")
    readout = FittedReadout(fold.readout, [1.0, 0.1, 0.0, 0.2], [0.5, 0.0, 0.3, 0.0])
    rng = np.random.default_rng(0)
    directions = {}
    for name in fold.perspectives:
        edit = AddVector(rng.normal(size=fold.sae.cfg.d_in))
        directions[name] = Direction(name, fold.cache.hook_name, edit, readout=readout)
    example = most_divided(fold, directions, opinions, merge)
    spreads = {
        id_: max(np.abs(np.subtract(*opinions.by_id[id_].distributions.values())))
        for id_ in fold.test
    }
    assert example.item == opinions.by_id[max(spreads, key=spreads.get)]
    [read] = read_options(fold.model, example.item, list(directions.values()), fold.readout)
    assert list(example.branches) == ["base", *fold.perspectives]
    for row, p in zip(read.log_probs().exp(), example.branches.values(), strict=True):
        np.testing.assert_allclose(p, row, atol=1e-6)
    expected = merge_branches(read.log_probs(), merge).exp()
    np.testing.assert_allclose(example.merged, expected, atol=1e-6)
    told = example.to_dict()
    assert told["people"] == {p: list(v) for p, v in example.item.distributions.items()}
    assert (told["item"], told["prompt"]) == (example.item.id, example.item.prompt)
