import pytest

from saepd.common.errors import InputError
from saepd.evaluation.methods.choice import methods_of
from saepd.evaluation.methods.registry import METHODS


def test_methods_are_those_that_the_task_allows(opinions, labels):
    assert set(methods_of(labels, ["all"])) == set(METHODS)
    for_labels = {n for n in METHODS if n.startswith(("linear-probe", "gated"))}
    assert for_labels == set(METHODS) - set(methods_of(opinions, ["all"]))
    costly = {n for n, m in METHODS.items() if m.costly}
    assert set(methods_of(opinions)) == set(methods_of(opinions, ["all"])) - costly
    assert "merged-pluralistic" in costly and "fitted-scales-random-latents" not in costly
    with pytest.raises(InputError, match="no methods: name at least one of uniform"):
        methods_of(opinions, [])
    with pytest.raises(
        InputError, match=r"unknown method 'temprature': did you mean 'temperature'"
    ):
        methods_of(opinions, ["temprature"])
    with pytest.raises(InputError, match="linear-probe-latents needs a positive class"):
        methods_of(opinions, ["linear-probe-latents"])


def test_ids_may_be_one_text_with_commas(opinions):
    wanted = methods_of(opinions, ["zero-shot", "train-mean"])
    for ids in ("zero-shot,train-mean", ["zero-shot, train-mean"], ["zero-shot,", "train-mean"]):
        assert methods_of(opinions, ids) == wanted
    with pytest.raises(InputError, match="no methods: name at least one"):
        methods_of(opinions, [" , "])
