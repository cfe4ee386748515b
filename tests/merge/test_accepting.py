import numpy as np
import pytest
import torch

from saepd.common.errors import InputError
from saepd.merge.accepting import as_tensor
from saepd.merge.config import MergeConfig
from saepd.merge.disagreement import branch_disagreement, entropy, perspective_disagreement
from saepd.merge.operators import merge_branches

ROWS = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]).log()

FUNCTIONS = {
    "merge": lambda rows: merge_branches(rows, MergeConfig()),
    "disagreement": branch_disagreement,
    "perspectives": perspective_disagreement,
    "entropy": entropy,
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_arrays_and_lists_give_what_tensors_give(function):
    for given in (ROWS.numpy(), ROWS.tolist()):
        torch.testing.assert_close(function(given), function(ROWS), check_dtype=False)


def test_a_tensor_is_taken_as_it_is():
    assert as_tensor(ROWS) is ROWS


@pytest.mark.parametrize("given", ["so", None, [[0.0], [0.0, 1.0]], np.array(["a"]), {"a": 1.0}])
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_what_holds_no_numbers_is_one_sentence(function, given):
    with pytest.raises(InputError):
        function(given)
