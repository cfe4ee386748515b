import pytest

from saepd.interchange.harness.paired import paired_with_base


def results(values, metric="acc"):
    samples = [{"doc_id": i, metric: v, "metrics": [metric]} for i, v in enumerate(values)]
    return {"samples": {"task": samples}}


def test_differences_are_taken_question_by_question():
    base = [0, 1] * 20
    found = paired_with_base(
        {"base": results(base), "same": results(base), "all": results([1.0] * 40)}
    )
    same = found["same"]["task"]["acc"]
    assert (same["estimate"], same["low"], same["high"]) == (0, 0, 0)
    better = found["all"]["task"]["acc"]
    assert better["estimate"] == pytest.approx(0.5)
    assert 0.3 < better["low"] < 0.5 < better["high"] < 0.7
    assert "base" not in found


def test_each_way_to_read_an_answer_has_a_difference_of_its_own():
    """Of a task with several filters, each document has a sample for each of them."""

    def read(**ways):
        samples = [
            {"doc_id": i, "acc": value, "metrics": ["acc"], "filter": way}
            for way, values in ways.items()
            for i, value in enumerate(values)
        ]
        return {"samples": {"task": samples}}

    left, base = read(none=[1] * 9, loose=[1] * 9), read(none=[0] * 9, loose=[1] * 9)
    found = paired_with_base({"base": base, "left": left})["left"]["task"]
    assert {name: one["estimate"] for name, one in found.items()} == {"acc": 1.0, "acc,loose": 0.0}


def test_what_is_no_number_has_no_difference():
    assert paired_with_base({"base": results(["a"]), "other": results(["b"])}) == {}
