import subprocess
import sys
from dataclasses import replace

import pytest

from saepd.common.errors import InputError
from saepd.feedback.schema import Feedback, Item
from saepd.models.prompts import item_prompt
from saepd.models.wording import ReadoutConfig
from saepd.tasks.loading import PACKAGED_TASK, TASK_NAMES, load_task
from saepd.tasks.task import SURVEY_WORDING, Task, Wording


def item(id_, **distributions):
    return Item(id=id_, prompt=f"{id_}?", options=("Yes", "No"), distributions=distributions)


def said(id_, perspective):
    return Feedback(
        id=f"{id_}-{perspective}",
        item=id_,
        perspective=perspective,
        prompt=f"{id_}?",
        options=("Yes", "No"),
        answer="Yes",
    )


def task(items, **changes):
    return Task("soup", tuple(items), SURVEY_WORDING, ("js_distance",), **changes)


def test_perspectives_come_with_most_items_first_then_by_name():
    items = [item("a", South=(1, 0), North=(1, 0)), item("b", West=(1, 0)), item("c", West=(0, 1))]
    assert task(items).perspectives == ("West", "North", "South")
    rows = (said("a", "East"), said("b", "East"), said("c", "East"), said("b", "West"))
    assert task(items, feedback=rows).perspectives == ("East", "West", "North", "South")


def test_only_some_perspectives_leaves_their_items_golds_and_rows():
    items = [item("a", North=(1, 0), South=(1, 0)), item("b", South=(1, 0)), item("c"), item("d")]
    items[0] = items[0].model_copy(update={"counts": {"North": 3, "South": 4}})
    whole = task(items, feedback=(said("c", "North"), said("d", "South")), left_out={"why": 1})
    north = whole.only(["North"])
    assert [(i.id, list(i.distributions), i.counts) for i in north.items] == [
        ("a", ["North"], {"North": 3}),
        ("c", [], {}),
    ]
    assert [row.item for row in north.feedback] == ["c"]
    assert north.perspectives == ("North",)
    assert north.left_out == {"why": 1}
    with pytest.raises(InputError, match=r"no perspective 'Nrth': did you mean 'North'\?"):
        whole.only(["Nrth"])


def test_shares_are_of_those_who_are_asked_about():
    three = task([item("a", North=(1, 0), South=(1, 0), West=(0, 1))])
    assert three.shares() == pytest.approx(dict.fromkeys(("North", "South", "West"), 1 / 3))
    counted = replace(three, population={"North": 30, "South": 10, "West": 60})
    assert counted.shares() == pytest.approx({"North": 0.3, "South": 0.1, "West": 0.6})
    assert counted.shares(["South", "North"]) == pytest.approx({"South": 0.25, "North": 0.75})
    assert counted.only(["South", "West"]).shares() == pytest.approx(
        {"South": 1 / 7, "West": 6 / 7}
    )
    with pytest.raises(InputError, match="has nobody of perspective 'West': say how many"):
        replace(three, population={"North": 1, "South": 1, "West": 0}).shares()


def test_the_packaged_surveys_population_are_its_respondents():
    respondents = {"Democrat": 731, "Independent": 980, "Republican": 527}
    assert load_task(PACKAGED_TASK).population == respondents


@pytest.mark.parametrize(
    ("items", "changes", "message"),
    [
        ([], {"left_out": {"too odd": 2}}, r"no usable question: left out were too odd \(2\)"),
        ([item("a"), item("a")], {}, "two items with the id 'a'"),
        ([item("a")], {"feedback": (said("b", "North"),)}, "'b-North' .* 'b', which is not there"),
        ([item("a")], {"positive": "Perhaps"}, "'Perhaps' is not an option"),
    ],
)
def test_tasks_that_cannot_be(items, changes, message):
    with pytest.raises(InputError, match=message):
        task(items, **changes)


def test_wording_fills_its_templates_whatever_the_texts_hold():
    names = {"gold": "experts"}
    wording = Wording("{prompt} A:", "{prompt}", "{perspective}: {prompt} A:", names)
    assert wording.text("{x}?") == "{x}? A:"
    assert wording.text("{x}?", "chat") == "{x}?"
    assert wording.persona_text("x?", "{North}") == "{North}: x? A:"
    assert wording.persona_text("x?", "gold") == "experts: x? A:"
    for bad in (("A", "{prompt}"), ("{prompt}", "{perspective}")):
        with pytest.raises(InputError, match=r"has no \{prompt\}"):
            Wording(bad[0], bad[1], "{perspective} {prompt}")
    with pytest.raises(InputError, match=r"persona has no \{perspective\}"):
        Wording(*["{prompt}"] * 3)


def test_the_survey_wording_is_the_readouts_own():
    plain = item_prompt(None, "Is soup a meal?", ["Yes", "No"], ReadoutConfig(style="plain"))
    assert SURVEY_WORDING.text("Is soup a meal?") == plain


def test_unknown_tasks_are_named_with_the_nearest(tmp_path):
    with pytest.raises(InputError, match=r"'HateChek': did you mean 'hatecheck'\? use one of cl"):
        load_task("HateChek", tmp_path)
    with pytest.raises(InputError, match=r"use one of .*, own$"):
        load_task("zzz", tmp_path)


def test_the_packaged_task_needs_no_file_and_the_others_do(tmp_path):
    task = load_task(PACKAGED_TASK)
    assert len(task.items) == 25
    assert set(task.perspectives) == {"Democrat", "Independent", "Republican"}
    assert load_task(PACKAGED_TASK, perspectives=2).perspectives == task.perspectives[:2]
    with pytest.raises(InputError, match="the task gss is packaged and takes no file"):
        load_task(PACKAGED_TASK, tmp_path)
    with pytest.raises(InputError, match="the task liar needs its file or folder: name it"):
        load_task("liar")


@pytest.mark.parametrize("name", sorted(set(TASK_NAMES) - {PACKAGED_TASK}))
def test_every_task_refuses_a_missing_file_and_a_wrong_suffix(tmp_path, name):
    with pytest.raises(InputError, match="No such file"):
        load_task(name, tmp_path / "none.csv")
    (tmp_path / "f.xlsx").write_text("soup")
    with pytest.raises(InputError, match=r"unknown suffix|not JSON|1 column"):
        load_task(name, tmp_path / "f.xlsx")
    (tmp_path / "f.csv").write_bytes(b"caf\xe9,b\n")
    with pytest.raises(InputError, match=r"UTF-8|no column"):
        load_task(name, tmp_path / "f.csv")


@pytest.mark.parametrize("perspectives", ["North", []])
def test_perspectives_must_be_a_list_of_names(tmp_path, perspectives):
    (tmp_path / "f.csv").write_text("claim,label,annotator\nSoup is wet.,no,North\n")
    with pytest.raises(InputError, match="give a list of names"):
        load_task("claims", tmp_path / "f.csv", perspectives)


def test_importing_the_package_loads_no_model_code_and_no_loader():
    late = ["torch", "saepd.tasks.published.liar", "saepd.tasks.published.opinions"]
    code = f"import sys, saepd.tasks; print([m for m in {late} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_braces_in_a_prompt_or_a_name_are_text():
    wording = replace(SURVEY_WORDING, persona="{x} of {perspective}: {prompt}")
    assert wording.persona_text("Is {x} > {y}?", "{prompt}") == "{x} of {prompt}: Is {x} > {y}?"
    assert "{prompt} {0}" in wording.text("{prompt} {0}")
