import pytest

from saepd.common.errors import InputError
from saepd.feedback.schema import Feedback, Item

QUESTION = {"id": "soup", "prompt": "Is soup a meal?", "options": ("Yes", "No")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"options": ("Yes", "Yes")}, "options: 'Yes' is there twice: options must differ"),
        ({"prompt": ""}, "prompt: empty: write some text"),
        ({"options": 3}, "options: 3 is not a list: write it as one"),
        ({"distributions": {"North": (0.9, 0.9)}}, "distributions: sums to 1.8"),
        ({"counts": {"North": 0}}, "counts: 0 is too small: write 1 or more"),
        ({"anwser": "Yes"}, "anwser: no such field"),
        ({"id": 10**5000}, "id: <int> is not text"),
    ],
)
def test_a_wrong_item_is_refused_as_every_wrong_input_is(changes, message):
    with pytest.raises(InputError, match=r"^Item\(id=") as caught:
        Item(**QUESTION | changes)
    assert message in str(caught.value)


def test_all_that_is_wrong_with_feedback_is_told_at_once():
    with pytest.raises(InputError) as caught:
        Feedback(**QUESTION, perspective=" ", answer="Perhaps")
    assert str(caught.value) == (
        "Feedback(id='soup'): perspective: empty: write some text; "
        "answer: 'Perhaps' is not an option: write one of 'Yes', 'No'"
    )


def test_a_value_that_cannot_be_printed_is_still_refused():
    nested = []
    for _ in range(5000):
        nested = [nested]
    with pytest.raises(InputError, match="is not text"):
        Item(**QUESTION | {"prompt": nested})
