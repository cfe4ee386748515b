from dataclasses import replace

import numpy as np
import pytest

from saepd.evaluation.methods.method import Method
from saepd.evaluation.results.parts import Prediction
from saepd.evaluation.results.population import population_rows
from saepd.evaluation.results.table import markdown_table
from saepd.metrics.distances import js_distance

METHODS = {
    "zero-shot": Method("zero-shot", lambda fold: {}, "uniform for all"),
    "own": Method("own", lambda fold: {}, "each group's gold", null=False),
    "one": Method(
        "one", lambda fold: {}, "half of it", null=False, for_population=True, controls=("own",)
    ),
}
# South has not answered everything.
PARTLY = ("q1", "q5")


@pytest.fixture
def partly(opinions):
    items = [
        item.model_copy(update={"distributions": {"north": item.distributions["north"]}})
        if item.id in PARTLY
        else item
        for item in opinions.items
    ]
    return replace(opinions, items=tuple(items), population={"north": 3, "south": 1})


def gold(item):
    if item.id in PARTLY:
        return np.array(item.distributions["north"])
    return 0.75 * np.array(item.distributions["north"]) + 0.25 * np.array(
        item.distributions["south"]
    )


def predicted(task):
    found = []
    for draw in (0, 1):
        for item in task.items[2 * draw : 2 * draw + 9]:
            even = np.full(len(item.options), 1 / len(item.options))
            for name, own in item.distributions.items():
                said = {
                    "zero-shot": even,
                    "own": np.array(own),
                    "one": 0.5 * even + 0.5 * gold(item),
                }
                found += [Prediction(draw, m, item.id, name, p) for m, p in said.items()]
    return found


def test_each_method_is_held_against_the_mean_of_the_groups_by_their_shares(partly):
    found = predicted(partly)
    rows = {row["method"]: row for row in population_rows(found, METHODS, partly, 0)}
    assert list(rows) == list(METHODS)
    # The mean of each group's own answers is the population's.
    assert rows["own"]["js_distance"] == pytest.approx(0, abs=1e-6)
    asked = [(r.draw, r.item) for r in found if r.method == "one" and r.perspective == "north"]
    for method, pull in (("zero-shot", 0.0), ("one", 0.5)):
        golds = [gold(partly.by_id[id_]) for _, id_ in asked]
        said = [pull * g + (1 - pull) / len(g) for g in golds]
        distance = js_distance(said, golds).mean()
        assert rows[method]["js_distance"] == pytest.approx(distance, abs=1e-6)
        assert rows[method]["n_predictions"] == len(asked)
    assert rows["one"]["best_null"] == "zero-shot"
    lost = rows["one"]["js_distance"] - rows["zero-shot"]["js_distance"]
    assert rows["one"]["js_minus_best_null"][0] == pytest.approx(lost, abs=1e-5)
    assert rows["one"]["js_minus_controls"]["own"][0] == pytest.approx(
        rows["one"]["js_distance"], abs=1e-5
    )


def test_a_mean_of_different_answers_is_called_one(partly):
    text = markdown_table(population_rows(predicted(partly), METHODS, partly, 0))
    assert "| own, groups' mean |" in text
    assert "| one |" in text and "| zero-shot |" in text


def test_labels_are_compared_by_distance_too(labels):
    rows = population_rows(predicted(replace(labels, population={})), METHODS, labels, 0)
    assert {"js_distance", "total_variation"} <= rows[0].keys()
    assert "auroc" not in rows[0]


def test_there_are_none_without_several_perspectives_or_a_method_for_all(partly):
    few = {id_: method for id_, method in METHODS.items() if id_ != "one"}
    found = predicted(partly)
    assert population_rows([r for r in found if r.method != "one"], few, partly, 0) == []
    north = [r for r in found if r.perspective == "north"]
    assert population_rows(north, METHODS, partly.only(["north"]), 0) == []
