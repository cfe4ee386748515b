import csv
import json

import pytest

from saepd.common.errors import InputError
from saepd.tasks.loading import load_task
from saepd.tasks.published.opinions import (
    ALL_ZERO,
    DAMAGED_OPTION,
    FEW_OPTIONS,
    GIVEN_BEFORE,
    NO_SHARES,
    REPEATED_OPTIONS,
    WRONG_LENGTH,
    WRONG_SUM,
)

FRAMED = "Question: Is soup good?\nOptions: A. Very good B. Somewhat good C. DK\nAnswer:"


def prepared(**changes):
    row = {
        "question": FRAMED,
        "options": ["Very good", "Somewhat good", "DK"],
        "attribute": "North",
        "gold_distribution": [0.5, 0.3, 0.2],
        "pred_distribution": None,
        "id": 1,
    }
    return row | changes


def load(tmp_path, rows, name="globalopinionqa"):
    path = tmp_path / "f.json"
    path.write_text(json.dumps(rows))
    return load_task(name, path)


def test_prepared_rows_are_joined_to_bare_questions(tmp_path):
    tea = prepared(
        question="Question: Tea?\nOr milk?\nOptions: A. Yes B. No\nAnswer:",
        options=[" Yes", "No "],
        gold_distribution=[0.51, 0.5],
        attribute="South ",
    )
    rows = [prepared(), tea, prepared(attribute="South", gold_distribution=[0, 0.25, 0.75])]
    task = load(tmp_path, rows)
    soup, tea = task.items
    assert soup.prompt == "Is soup good?"
    assert soup.distributions == {"North": (0.5, 0.3, 0.2), "South": (0, 0.25, 0.75)}
    assert (tea.prompt, tea.options) == ("Tea?\nOr milk?", ("Yes", "No"))
    assert tea.distributions["South"] == pytest.approx((0.51 / 1.01, 0.5 / 1.01))
    assert task.perspectives == ("South", "North")
    assert task.left_out == {}
    turned = load(tmp_path, rows[::-1])
    assert {item.id for item in turned.items} == {soup.id, tea.id}
    assert task.only(["North"]).items[0].id == soup.id


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"options": ["Yes"], "gold_distribution": [1.0]}, FEW_OPTIONS),
        ({"options": ["Yes", "Yes ", "No"]}, REPEATED_OPTIONS),
        ({"options": ["Yes", " ", "No"]}, REPEATED_OPTIONS),
        ({"gold_distribution": [0.5, 0.5]}, WRONG_LENGTH),
        ({"gold_distribution": [1.1, -0.1, 0]}, NO_SHARES),
        ({"gold_distribution": [float("nan"), 0.5, 0.5]}, NO_SHARES),
        ({"gold_distribution": [0, 0, 0.0]}, ALL_ZERO),
        ({"gold_distribution": [0.5, 0.3, 0.17]}, WRONG_SUM),
        ({"gold_distribution": [0.5, 0.5, 0.03]}, WRONG_SUM),
        ({"attribute": "South"}, GIVEN_BEFORE),
    ],
)
def test_golds_that_cannot_be_used_are_counted(tmp_path, changes, reason):
    rows = [prepared(attribute="South"), prepared(**changes), prepared(attribute="West")]
    task = load(tmp_path, rows)
    assert task.left_out == {reason: 1}
    [item] = task.items
    assert set(item.distributions) == {"South", "West"}


@pytest.mark.parametrize("total", [0.98, 1.02])
def test_the_bounds_of_rounding_are_renormalised(tmp_path, total):
    [item] = load(tmp_path, [prepared(gold_distribution=[0.5, 0.3, total - 0.8])]).items
    assert sum(item.distributions["North"]) == pytest.approx(1, abs=1e-12)


def test_a_file_of_nothing_usable_says_why(tmp_path):
    with pytest.raises(InputError, match=r"no usable question: left out were .* \(2\)"):
        load(tmp_path, [prepared(gold_distribution=[0, 0, 0])] * 2)


@pytest.mark.parametrize(
    ("options", "golds", "damaged"),
    [
        (["Essential", "Importan", "ut not essential"], [[1, 0, 0], [1, 0, 0]], True),
        (["Essential", "Importan", "ut not essential"], [[1, 0, 0], [0.9, 0.1, 0]], False),
        (["'Know all", "Know some", '"Don\'t know"'], [[0, 1, 0]], True),
        (["'Yes'", "'No'"], [[0.5, 0.5]], False),
        (["Some", "None"], [[1, 0], [1, 0]], True),
        (["Some", "None"], [[1, 0], [0.9, 0.1]], False),
        (["Better", "Worse", "neither better nor worse"], [[0.9, 0.1, 0]], False),
        (["very", "somewhat", "not"], [[1, 0, 0]], False),
    ],
)
def test_questions_whose_options_lost_their_share_are_left_out(tmp_path, options, golds, damaged):
    rows = [prepared(attribute="West")]
    rows += [
        prepared(question="Tea?", options=options, gold_distribution=gold, attribute=f"RACE_{i}")
        for i, gold in enumerate(golds)
    ]
    task = load(tmp_path, rows, "opinionqa")
    assert task.left_out == ({DAMAGED_OPTION: len(golds)} if damaged else {})
    assert len(task.items) == (1 if damaged else 2)


def published(selections, options="['Better', 'Worse', 'About the same']", **changes):
    row = {"question": "Is soup?", "selections": selections, "options": options, "source": "GAS"}
    return row | changes


SHARES = "defaultdict(<class 'list'>, {'Northland': [0.25, 0.5, 0.25], 'S. Korea': [0, 0, 1.0]})"


def test_the_published_form_as_csv_and_jsonl(tmp_path):
    rows = [
        published(SHARES),
        published("{'Northland': [0.5, 0.5]}", "[1, 2.0]", question="Tea?", source="WVS"),
        published("{'Northland': [1.0]}", "['Yes']", question="Milk?"),
    ]
    with (tmp_path / "f.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    lines = [json.dumps(row | {"options": eval_options(row)}) for row in rows]
    (tmp_path / "f.jsonl").write_text("\n".join(lines))
    task = load_task("globalopinionqa", tmp_path / "f.csv")
    assert load_task("globalopinionqa", tmp_path / "f.jsonl") == task
    soup, tea = task.items
    assert (soup.topic, tea.topic) == ("GAS", "WVS")
    assert soup.distributions == {"Northland": (0.25, 0.5, 0.25), "S. Korea": (0, 0, 1)}
    assert tea.options == ("1", "2.0")
    assert task.ordinal == {soup.id: (0, 2, 1)}
    assert task.left_out == {FEW_OPTIONS: 1}


def test_countries_without_answers_are_left_out_in_the_published_form(tmp_path):
    rows = [published("defaultdict(<class 'list'>, {'N': [nan, 0.5, 0.5], 'S': [0.2, 0.3, 0.5]})")]
    task = load(tmp_path, rows)
    assert task.items[0].distributions == {"S": (0.2, 0.3, 0.5)}
    assert task.left_out == {NO_SHARES: 1}


def test_shares_may_be_named_by_their_options(tmp_path):
    named = {"Worse": 0.5, "Better": 0.2, "About the same": 0.3}
    [item] = load(tmp_path, [published({"N": named})]).items
    assert item.distributions == {"N": (0.2, 0.5, 0.3)}


def test_percentages_are_told_from_shares(tmp_path):
    with pytest.raises(InputError, match="sum to 100: divide percentages by 100"):
        load(tmp_path, [published("{'N': [40, 59, 1]}")])


def eval_options(row):
    return json.loads(row["options"].replace("'", '"'))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (published("{'Northland': [0.5"), "selections: \"{'Northland': [0.5\" is not a dict"),
        (published("[0.5]"), "selections: '[0.5]' is not a dict"),
        (published("{'Northland': 1}"), "selections: 1 is not a list"),
        (published("{'Northland': ['x']}"), "selections: 'x' is not a number"),
        (published("{' ': [1, 0, 0]}"), "selections: empty"),
        (published("__import__('os').getcwd()"), "is not a dict"),
        (published(SHARES, "Better|Worse"), "options: 'Better|Worse' is not a list"),
        (published(SHARES, question=" "), "question: empty"),
        (prepared(gold_distribution="much"), "gold_distribution: 'much' is not a list"),
        (prepared(gold_distribution=[True, 0, 0]), "gold_distribution: True is not a number"),
        (prepared(attribute=None), "attribute: missing"),
        (prepared(question=5.5), "question: 5.5 is not text"),
        (prepared(question="Question: \nOptions: A.\nAnswer:"), "question: empty"),
        ({"question": "Tea?", "options": []}, "no column selections, nor attribute and gold"),
        ({"question": "Tea?"}, "entry 1: no column options"),
        ("tea", "'tea' is not an object"),
    ],
)
def test_bad_rows_are_named(tmp_path, row, message):
    with pytest.raises(InputError) as caught:
        load(tmp_path, [row])
    assert message in str(caught.value)


def test_prompts_name_a_perspective_readably(tmp_path):
    row = prepared(attribute="S. Africa (Non-national sample)")
    task = load(tmp_path, [row, prepared(attribute="Northland")])
    text = task.wording.persona_text("Is soup good?", row["attribute"])
    assert text == "A survey in South Africa asked: Is soup good?\nMost people answered:"
    assert (
        task.wording.text("Is soup good?") == "A survey asked: Is soup good?\nMost people answered:"
    )
    groups = ["POLPARTY_Independent", "INCOME_$30,000-$50,000", "SHOE_Large"]
    task = load(tmp_path, [prepared(attribute=group) for group in groups], "opinionqa")
    assert [task.wording.persona_text("Q?", group)[:52] for group in groups] == [
        "A survey asked Americans (political party: Independe",
        "A survey asked Americans (family income: $30,000-$50",
        "A survey asked Americans (SHOE_Large): Q?\nMost of th",
    ]


@pytest.mark.parametrize(
    ("name", "n_items", "n_perspectives", "n_golds", "left_out"),
    [
        ("globalopinionqa", 653, 128, 2971, {}),
        ("opinionqa", 437, 22, 1986, {FEW_OPTIONS: 1, DAMAGED_OPTION: 182}),
    ],
)
def test_the_public_files(shared_data, name, n_items, n_perspectives, n_golds, left_out):
    path = shared_data(f"{name}.json")
    task = load_task(name, path)
    assert (len(task.items), len(task.perspectives)) == (n_items, n_perspectives)
    assert sum(len(item.distributions) for item in task.items) == n_golds
    assert task.left_out == left_out
    # Nothing is lost on the way: what is not in the task is counted.
    assert n_golds + sum(left_out.values()) == len(json.loads(path.read_text(encoding="utf-8")))
    for item in task.items:
        assert not item.prompt.startswith("Question:")
        assert "\nOptions:" not in item.prompt
    numbers = [sum(p in item.distributions for item in task.items) for p in task.perspectives]
    assert numbers == sorted(numbers, reverse=True)
    ternary = [item for item in task.items if len(item.options) > 2]
    assert 0.6 < len(task.ordinal) / len(ternary) < 0.9
