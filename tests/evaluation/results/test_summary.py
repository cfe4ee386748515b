import re
from dataclasses import replace

import numpy as np
import pytest

from saepd.branches.neutral import SideEffects
from saepd.evaluation.methods.method import Method
from saepd.evaluation.methods.registry import METHODS
from saepd.evaluation.results import labelled
from saepd.evaluation.results.labelled import label_of
from saepd.evaluation.results.parts import Prediction
from saepd.evaluation.results.summary import primary_metric, summary_rows
from saepd.evaluation.results.table import finding, markdown_table
from saepd.feedback.schema import Item
from saepd.metrics import classification
from saepd.metrics.distances import js_distance, total_variation, wasserstein
from saepd.metrics.intervals import draw_weights
from saepd.tasks.task import OPINION_METRICS, SURVEY_WORDING, Task


def predictions(task, methods, n_draws=2, share=0.5):
    """Draws that share some of their items; every method says something of its own."""
    found = []
    for draw in range(n_draws):
        items = task.items[draw * 3 : draw * 3 + 8]
        for method, pull in methods.items():
            for item in items:
                for name, gold in item.distributions.items():
                    p = pull * np.array(gold) + (1 - pull) / len(gold)
                    found.append(Prediction(draw, method, item.id, name, p))
    return found


PULLS = {"zero-shot": 0.2, "train-mean": 0.5, "ours": 0.8, "uniform": 0.0}
METHODS_OF = {
    id_: Method(id_.title(), lambda fold: {}, "a pull", null=id_ != "ours") for id_ in PULLS
}


def nulls_of(null, ids=PULLS):
    """Methods of which only one is a null."""
    return {id_: Method(id_.title(), lambda fold: {}, "a pull", null=id_ == null) for id_ in ids}


def test_the_finding_says_whether_the_best_method_beats_the_best_null(opinions):
    rows = summary_rows(predictions(opinions, PULLS), METHODS_OF, opinions, 0)
    assert re.fullmatch(
        r"The best null is Train-Mean \(JS distance 0\.\d{3}\); of the other methods the best, "
        r"Ours \(0\.\d{3}\), is better \(95% interval of the difference -0\.\d+ to -0\.\d+\)\.",
        finding(rows),
    )
    weak = {"zero-shot": 0.2, "train-mean": 0.5, "ours": 0.2, "uniform": 0.0}
    rows = summary_rows(predictions(opinions, weak), METHODS_OF, opinions, 0)
    assert "Ours" in finding(rows) and "is worse (95%" in finding(rows)
    even = {"zero-shot": 0.2, "train-mean": 0.5, "ours": 0.5, "uniform": 0.0}
    rows = summary_rows(predictions(opinions, even), METHODS_OF, opinions, 0)
    assert "cannot be told apart from it" in finding(rows)
    hardly = {"zero-shot": 0.2, "train-mean": 0.5, "ours": 0.5001, "uniform": 0.0}
    rows = summary_rows(predictions(opinions, hardly), METHODS_OF, opinions, 0)
    [ours, *_] = [row for row in rows if row["method"] == "ours"]
    assert ours["js_minus_best_null"][2] < 0
    assert "cannot be told apart from it" in finding(rows)
    nulls = {id_: method for id_, method in METHODS_OF.items() if method.null}
    rows = summary_rows(
        predictions(opinions, {id_: PULLS[id_] for id_ in nulls}), nulls, opinions, 0
    )
    assert finding(rows).startswith("There is nothing to compare")


def test_items_of_one_question_are_drawn_together(opinions):
    """Asking everything twice, as templates do, makes nobody surer."""
    again = {item.id: f"{item.id} again" for item in opinions.items}
    twins = tuple(i.model_copy(update={"id": again[i.id]}) for i in opinions.items)
    reworded = tuple(i.model_copy(update={"prompt": f"So, {i.prompt}"}) for i in twins)
    groups = {id_: name for name, twin in again.items() for id_ in (name, twin)}
    found = predictions(opinions, PULLS)
    more = [p for row in found for p in (row, row._replace(item=again[row.item]))]
    once = summary_rows(found, METHODS_OF, opinions, 0)
    for task in (
        replace(opinions, items=opinions.items + twins),
        replace(opinions, items=opinions.items + reworded, groups=groups),
    ):
        twice = summary_rows(more, METHODS_OF, task, 0)
        for row, other in zip(once, twice, strict=True):
            assert (row["js_ci"], row["js_distance"]) == (other["js_ci"], other["js_distance"])


def test_a_method_is_compared_with_its_own_controls(opinions):
    found = predictions(opinions, PULLS)
    ours = replace(METHODS_OF["ours"], controls=("uniform", "not-run"))
    rows = summary_rows(found, METHODS_OF | {"ours": ours}, opinions, 0)
    [overall, *_] = [r for r in rows if r["method"] == "ours"]
    [other, *_] = [
        r for r in summary_rows(found, nulls_of("uniform"), opinions, 0) if r["method"] == "ours"
    ]
    assert overall["js_minus_controls"] == {"uniform": other["js_minus_best_null"]}
    assert sum("js_minus_controls" in row for row in rows) == 3
    _, second = markdown_table(rows).split("\n\n")
    [_, _, line] = second.splitlines()
    assert line.startswith("| Ours | Uniform | -0.")


def test_a_bar_in_a_name_ends_no_cell():
    def row(name):
        known = {"title": "Ours", "null": False, "js_distance": 0.25, "js_ci": None}
        return {"method": "ours", "perspective": name, **known}

    head, line, cells = markdown_table([row("all"), row("left|north"), row("right")]).splitlines()
    assert head.endswith("| JS distance, left\\|north | JS distance, right |")
    assert len({text.replace("\\|", "").count("|") for text in (head, line, cells)}) == 1


def test_differences_are_paired_in_whatever_order_methods_answer(opinions):
    found = predictions(opinions, PULLS)
    rows = summary_rows(found, METHODS_OF, opinions, 0)
    ours = [row for row in found if row.method == "ours"]
    others = [row for row in found if row.method != "ours"]
    assert summary_rows(others + ours[::-1], METHODS_OF, opinions, 0) == rows
    # What answers as another does differs from it by nothing, in every draw.
    same = [row._replace(method="ours") for row in others if row.method == "train-mean"]
    [overall, *_] = [
        row
        for row in summary_rows(others + same[::-1], METHODS_OF, opinions, 0)
        if row["method"] == "ours"
    ]
    assert overall["js_minus_train_mean"] == [0, 0, 0]


def test_the_controls_of_methods_are_methods():
    for method in METHODS.values():
        assert set(method.controls) <= set(METHODS)
        assert not (method.null and method.controls)


def test_rows_of_opinions_are_the_metrics_of_their_own_predictions(opinions):
    found = predictions(opinions, PULLS)
    rows = {
        (r["method"], r["perspective"]): r for r in summary_rows(found, METHODS_OF, opinions, 7)
    }
    assert len(rows) == 4 * 3
    for (method, name), row in rows.items():

        def of(wanted, name=name):
            return [r for r in found if r.method == wanted and name in ("all", r.perspective)]

        own = of(method)
        gold = [opinions.by_id[r.item].distributions[r.perspective] for r in own]
        ids = [r.item for r in own]
        p = [r.probabilities for r in own]
        distances = js_distance(p, gold)
        drawn = [np.repeat(np.arange(len(ids)), n.astype(int)) for n in draw_weights(ids, 7)[1:]]
        expected = np.quantile([distances[rows].mean() for rows in drawn], [0.025, 0.975])
        assert row["js_distance"] == pytest.approx(distances.mean(), abs=1e-6)
        np.testing.assert_allclose(row["js_ci"], expected, atol=1e-6)
        assert row["total_variation"] == pytest.approx(total_variation(p, gold).mean(), abs=1e-6)
        two = [(a, b) for a, b in zip(p, gold, strict=True) if len(b) == 2]
        ordered = wasserstein(*zip(*two, strict=True)).mean()
        assert row["wasserstein"] == pytest.approx(ordered, abs=1e-6)
        assert row["n_items"] == len(set(ids)) < row["n_predictions"]
        assert row["best_null"] == "train-mean"
        if method == "ours":
            for column, other in (("best_null", "train-mean"), ("zero_shot", "zero-shot")):
                others = js_distance([r.probabilities for r in of(other)], gold)
                differences = distances - others
                low, high = np.quantile([differences[r].mean() for r in drawn], [0.025, 0.975])
                given = row[f"js_minus_{column}"]
                np.testing.assert_allclose(given, [differences.mean(), low, high], atol=1e-6)
    assert "js_minus_best_null" not in rows["train-mean", "all"]


def test_an_answer_off_the_scale_counts_as_even_on_it():
    item = Item(
        id="q",
        prompt="How warm?",
        options=("cold", "mild", "hot", "Don't know"),
        distributions={"north": (0.0, 0.0, 1.0, 0.0)},
    )
    task = Task("warmth", (item,), SURVEY_WORDING, OPINION_METRICS, ordinal={"q": (0, 1, 2)})
    rows = summary_rows(
        [
            Prediction(0, method, "q", "north", np.array(p))
            for method, p in {
                "zero-shot": [0.0, 0.0, 0.0, 1.0],
                "train-mean": [0.25, 0.25, 0.25, 0.25],
                "uniform": [0.0, 0.0, 0.5, 0.5],
            }.items()
        ],
        {id_: METHODS_OF[id_] for id_ in ("zero-shot", "train-mean", "uniform")},
        task,
        0,
    )
    distances = {row["method"]: row["wasserstein"] for row in rows}
    # Thirds at 0, 1 and 2 are on average one step of two from the far end.
    assert distances == {"zero-shot": 0.5, "train-mean": 0.5, "uniform": 0.0}


def test_the_table_begins_with_the_best_and_marks_nulls(opinions):
    rows = summary_rows(predictions(opinions, PULLS), METHODS_OF, opinions, 0)
    head, _, *lines = markdown_table(rows).splitlines()
    assert head.startswith("| method | null | JS distance | 95% interval | minus zero-shot |")
    assert [line.split(" | ")[0].strip("| ") for line in lines] == [
        *("Ours", "Train-Mean", "Zero-Shot", "Uniform")
    ]
    assert ["| null |" in line for line in lines] == [False, True, True, True]


def test_rows_of_labels(labels):
    pulls = {"few-shot": 0.1, "zero-shot": 0.6, "uniform": 0.0}
    found = predictions(labels, pulls)
    rows = {
        (r["method"], r["perspective"]): r
        for r in summary_rows(found, nulls_of("uniform", pulls), labels, 0)
    }
    own = [r for r in found if r.method == "zero-shot" and r.perspective == "south"]
    scores = np.array([r.probabilities[1] for r in own])
    positive = np.array([labels.by_id[r.item].distributions["south"][1] >= 0.5 for r in own])
    row = rows["zero-shot", "south"]
    within = [
        classification.auroc(scores[drawn], positive[drawn])
        for drawn in (np.array([r.draw == n for r in own]) for n in range(2))
    ]
    assert row["auroc"] == pytest.approx(np.mean(within))
    assert row["recall"] == pytest.approx(classification.recall(scores, positive))
    assert row["false_positive_rate_at_few_shot_recall"] == pytest.approx(
        classification.false_positive_rate_at_recall(scores, positive, 1.0)
    )
    for recall in (0.25, 0.5):
        reaches = [t for t in scores if np.mean(scores[positive] >= t) >= recall]
        lowest = min(np.mean(scores[~positive] >= threshold) for threshold in reaches)
        assert row[f"false_positive_rate_at_recall_{recall}"] == pytest.approx(lowest)
    assert row["best_null"] == "uniform"
    assert "auroc_minus_zero_shot" in rows["few-shot", "all"]
    head = markdown_table(list(rows.values())).splitlines()[0]
    assert "| AUROC, north | AUROC, south |" in head
    hate = replace(labels, name="hatecheck")
    kinds = [r for r in summary_rows(found, nulls_of("", pulls), hate, 0) if "functionality" in r]
    assert len(kinds) == 3 * 3
    assert {r["functionality"] for r in kinds} == {"kind 0", "kind 1", "kind 2"}
    assert all(0 <= r["accuracy"] <= 1 for r in kinds)
    _, second = markdown_table(summary_rows(found, nulls_of("", pulls), hate, 0)).split("\n\n")
    head, _, *lines = second.splitlines()
    assert head.endswith("| Few-Shot | Zero-Shot | Uniform |")
    assert [line.split(" | ")[0].strip("| ") for line in lines] == ["kind 0", "kind 1", "kind 2"]


def test_few_shot_recall_is_read_at_the_base_rate_where_nothing_reaches_one_half(labels):
    halved = [
        r._replace(probabilities=np.array([1 - r.probabilities[1] / 4, r.probabilities[1] / 4]))
        for r in predictions(labels, {"few-shot": 0.3})
    ]
    rates = predictions(labels, {"train-mean": 1.0})
    [few_shot, *_] = summary_rows(
        [*halved, *rates], nulls_of("", ("few-shot", "train-mean")), labels, 0
    )
    assert few_shot["recall"] == 0
    assert few_shot["few_shot_recall"] > 0
    [without, *_] = summary_rows(halved, nulls_of("", ("few-shot",)), labels, 0)
    assert "few_shot_recall" not in without


def test_as_many_are_flagged_as_the_base_rate_says_and_no_ties_beyond():
    groups = [(0, "a")] * 4 + [(0, "b")] * 3
    scores = np.array([0.4, 0.1, 0.3, 0.2, 0.5, 0.5, 0.1])
    flagged = labelled.flagged_at_base_rate(groups, scores, {(0, "a"): 0.5, (0, "b"): 1 / 3})
    np.testing.assert_array_equal(flagged, [True, False, True, False, False, False, False])
    everything = labelled.flagged_at_base_rate(groups, scores, {(0, "a"): 1.0, (0, "b"): 0.0})
    np.testing.assert_array_equal(everything, [True] * 4 + [False] * 3)


def test_side_effects_are_means_over_draws_and_perspectives(opinions):
    effects = {
        "ours": [
            {"north": SideEffects(1.0, 2.0), "south": SideEffects(2.0, 3.0)},
            {"north": SideEffects(3.0, 4.0), "south": SideEffects(6.0, 7.0)},
        ]
    }
    found = summary_rows(predictions(opinions, PULLS), METHODS_OF, opinions, 0, effects)
    told = {
        (r["method"], r["perspective"]): (r["kl_to_base"], r["perplexity_ratio"]) for r in found
    }
    assert told["ours", "all"] == (3, 4)
    assert told["ours", "north"] == (2, 3)
    assert told["uniform", "all"] == (None, None)


def test_who_says_yes_more_often_ranks_no_item(labels):
    """The mean answer of each perspective and draw differs, and says nothing about items."""
    found = [
        r._replace(probabilities=np.array([1 - yes, yes]))
        for r in predictions(labels, {"train-mean": 0.0})
        for yes in [0.3 + 0.3 * (r.perspective == "north") + 0.1 * r.draw]
    ]
    assert {
        r["auroc"] for r in summary_rows(found, nulls_of("train-mean", ("train-mean",)), labels, 0)
    } == {0.5}


def test_a_tie_of_the_positive_class_is_positive():
    assert label_of((0.5, 0.5), 1) == 1
    assert label_of((0.4, 0.2, 0.4), 1) == 0
    assert label_of((0.2, 0.8), 0) == 1


def test_three_options_are_not_ranked_by_one_score(labels):
    metrics = tuple(name for name in labels.metrics if name != "auroc")
    three = replace(labels, metrics=metrics)
    assert primary_metric(three) == "macro_f1"
    rows = summary_rows(predictions(labels, PULLS), METHODS_OF, three, 0)
    assert rows[0]["macro_f1_ci"][0] <= rows[0]["macro_f1"] <= rows[0]["macro_f1_ci"][1]
    assert "macro-F1" in markdown_table(rows)
