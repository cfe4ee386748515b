import pytest

from saepd.common.errors import InputError
from saepd.feedback.reading import write_feedback
from saepd.feedback.sample import sample_feedback
from saepd.feedback.schema import Feedback


def people(n, perspective):
    question = {"prompt": "Is soup a meal?", "options": ("Yes", "No"), "answer": "Yes"}
    return [Feedback(id=f"{perspective}{i}", perspective=perspective, **question) for i in range(n)]


def test_samples_are_seeded_nested_and_independent_of_order_and_of_other_perspectives():
    north, south = people(30, "North"), people(30, "South")
    drawn = sample_feedback(north + south, 20, seed=1)
    assert [r.perspective for r in drawn] == ["North"] * 20 + ["South"] * 20
    assert len({r.id for r in drawn}) == 40
    assert sample_feedback(reversed(north + south), 20, seed=1) == drawn
    assert sample_feedback(south, 20, seed=1) == drawn[20:]
    assert sample_feedback(north + south, 20, 1, ["South"]) == drawn[20:]
    assert sample_feedback(north, 5, seed=1) == drawn[:5]
    assert sample_feedback(north + south, 20, seed=2) != drawn


def test_a_file_is_sampled_as_its_rows_are(tmp_path):
    rows = people(6, "North")
    write_feedback(tmp_path / "rows.jsonl", rows)
    assert sample_feedback(tmp_path / "rows.jsonl", 3, seed=0) == sample_feedback(rows, 3, seed=0)
    with pytest.raises(InputError, match="7 is no feedback"):
        sample_feedback(7, 3, seed=0)


@pytest.mark.parametrize(
    ("n", "perspectives", "message"),
    [(31, None, "there are 30"), (1, ["West"], "'West': there are 0"), (0, None, "at least 1")],
)
def test_samples_that_cannot_be_drawn(n, perspectives, message):
    with pytest.raises(InputError, match=message):
        sample_feedback(people(30, "North"), n, 0, perspectives)
