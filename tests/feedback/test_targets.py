import pytest

from saepd.common.errors import InputError
from saepd.feedback.schema import Feedback
from saepd.feedback.targets import answered

TWO, THREE = ("Yes", "No"), ("More", "Less", "Same")


def row(options=TWO, **said):
    return Feedback(id="r0", perspective="ours", prompt="Q?", options=options, **said)


def test_what_a_row_says_as_a_distribution():
    assert answered(row(answer="No")).tolist() == [0, 1]
    assert answered(row(THREE, answer="Same")).tolist() == [0, 0, 1]
    assert answered(row(THREE, distribution=(0.2, 0.3, 0.5))).tolist() == [0.2, 0.3, 0.5]
    # Shares say more than the one answer that may stand next to them.
    assert answered(row(answer="No", distribution=(0.6, 0.4))).tolist() == [0.6, 0.4]
    for silent in (row(comment="Well."), row((), answer="Well.")):
        with pytest.raises(InputError, match="feedback 'r0' has no answer among options"):
            answered(silent)
