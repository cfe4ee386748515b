import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from saepd.common.errors import InputError
from saepd.sweeps.space.parameters import check_name, checked_value, parameter_types, point_config
from saepd.sweeps.space.points import sweep_points
from saepd.sweeps.space.space import Choice, Range, parse_parameter
from saepd.sweeps.space.sweep_file import load_sweep, parse_sweep

GOOD = {
    "method": "grid",
    "metric": {"name": "gain"},
    "parameters": {"k": {"values": [4, 8]}, "operator": {"values": ["mixture", "cad", "product"]}},
}


def with_parameter(name, entry, **more):
    return GOOD | {"parameters": {name: entry}} | more


def ranged(**entry):
    return with_parameter("coefficient", entry, method="random", run_cap=2)


def test_a_grid_has_every_combination_once():
    points = sweep_points(parse_sweep(GOOD))
    found = [(p.config.fit.features.k, p.config.merge.operator) for p in points]
    assert sorted(found) == sorted((k, o) for k in (4, 8) for o in ("mixture", "cad", "product"))
    assert [p.number for p in points] == list(range(6))
    assert len({p.key for p in points}) == 6
    assert len(sweep_points(parse_sweep(GOOD | {"run_cap": 4}))) == 4


def test_keys_do_not_depend_on_the_file_but_on_content(tmp_path):
    turned = GOOD | {"parameters": dict(reversed(GOOD["parameters"].items()))}
    keys = {p.key for p in sweep_points(parse_sweep(GOOD))}
    assert {p.key for p in sweep_points(parse_sweep(turned))} == keys
    # A default that is spelled out is the same point.
    explicit = GOOD["parameters"] | {"alpha": {"value": 1}}
    assert {p.key for p in sweep_points(parse_sweep(GOOD | {"parameters": explicit}))} == keys
    data = tmp_path / "data.json"
    one = {"task": {"value": "own"}, "data": {"value": str(data)}}
    found = []
    for text in ("one", "two!", "one"):
        data.write_text(text)
        found.append(sweep_points(parse_sweep(GOOD | {"parameters": one}))[0].key)
    assert found[0] == found[2] != found[1]


def test_a_random_search_repeats_itself_and_no_point():
    mixed = {"k": {"min": 1, "max": 64}, "alpha": {"min": 0.0, "max": 2.0}}
    sweep = parse_sweep(GOOD | {"method": "random", "parameters": mixed, "run_cap": 20})
    points = sweep_points(sweep, seed=3)
    assert len({p.key for p in points}) == 20
    assert [p.key for p in sweep_points(sweep, seed=3)] == [p.key for p in points]
    assert [p.key for p in sweep_points(sweep, seed=4)] != [p.key for p in points]
    # Of listed values alone it is the grid, shuffled.
    listed = sweep_points(parse_sweep(GOOD | {"method": "random"}))
    assert {p.key for p in listed} == {p.key for p in sweep_points(parse_sweep(GOOD))}
    few = sweep_points(parse_sweep(GOOD | {"method": "random", "run_cap": 99}))
    assert len(few) == 6


@pytest.mark.parametrize(
    ("name", "entry", "expected"),
    [
        ("k", {"value": 4}, Choice((4,))),
        ("k", {"values": [4, 8], "distribution": "categorical"}, Choice((4, 8))),
        ("coefficient", {"values": [1, 2.5]}, Choice((1.0, 2.5))),
        ("k", {"min": 1, "max": 9}, Range(1, 9, integer=True)),
        ("alpha", {"min": 0.0, "max": 2}, Range(0, 2)),
        ("alpha", {"min": 1, "max": 2, "distribution": "uniform"}, Range(1, 2)),
        (
            "k",
            {"min": 8, "max": 64, "distribution": "q_uniform", "q": 8},
            Range(8, 64, step=8, integer=True),
        ),
        (
            "tau",
            {"min": 0.01, "max": 1, "distribution": "log_uniform_values"},
            Range(0.01, 1, log=True),
        ),
        ("perspectives", {"value": ["A", "B"]}, Choice((("A", "B"),))),
        ("perspectives", {"value": 3}, Choice((3,))),
        ("limit", {"values": [None, 4]}, Choice((None, 4))),
    ],
)
def test_the_words_of_the_format(name, entry, expected):
    assert parse_parameter(name, entry) == expected


def test_logarithmic_bounds_are_exponents_unless_they_are_values():
    found = parse_parameter("tau", {"min": -2, "max": 0, "distribution": "log_uniform"})
    assert isinstance(found, Range)
    assert (found.low, found.high, found.log) == (pytest.approx(np.exp(-2)), 1, True)


@given(
    st.floats(0.01, 5),
    st.floats(0, 5),
    st.booleans(),
    st.sampled_from([0.0, 0.1, 0.25]),
    st.integers(0, 99),
)
def test_samples_stay_within_their_range(low, width, log, step, seed):
    space = Range(low, low + width + 2 * step, log, step)
    value = space.sample(np.random.default_rng(seed))
    assert space.low - 1e-9 <= value <= space.high + 1e-9
    if step:
        assert abs(value / step - round(value / step)) < 1e-6


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([1], "a sweep is a mapping"),
        (GOOD | {"method": "gird"}, "method is 'gird': use grid, random or bayes"),
        (GOOD | {"parameters": {}}, "parameters is empty"),
        (GOOD | {"parametres": {}}, "unknown key 'parametres': did you mean 'parameters'"),
        (GOOD | {"early_terminate": {"type": "hyperband"}}, "nothing to stop"),
        (GOOD | {"metric": {"name": "js_distanse"}}, "did you mean 'js_distance'"),
        (GOOD | {"metric": {"name": "accuracy", "goal": "minimize"}}, "use maximize"),
        (GOOD | {"metric": "gain"}, "write metric"),
        (GOOD | {"run_cap": 0}, "run_cap is 0"),
        (with_parameter("coeficient", {"value": 1}), "did you mean 'coefficient'"),
        (with_parameter("draws", {"value": 2}), "sweep over seed instead"),
        (with_parameter("k", {"values": []}), "the grid is empty"),
        (with_parameter("k", {"values": ["8"]}), "parameter k is '8'"),
        (with_parameter("k", {"values": [8, 8]}), "lists 8 twice"),
        (with_parameter("k", {"value": 8.5}), "parameter k is 8.5"),
        (with_parameter("k", {"value": True}), "parameter k is True"),
        (with_parameter("k", 8), "write value, values, or min and max"),
        (with_parameter("k", {"value": 8, "values": [8]}), "value and values"),
        (with_parameter("k", {"values": [8], "min": 1}), "give value, values, or min and max"),
        (with_parameter("k", {"vales": [8]}), "did you mean 'values'"),
        (
            with_parameter("k", {"min": 9, "max": 2}, method="random", run_cap=2),
            "min 9 is above max 2",
        ),
        (with_parameter("k", {"min": 2}, method="random", run_cap=2), "max is missing"),
        (with_parameter("k", {"min": 2, "max": 9}), "a range, which has no grid"),
        (with_parameter("k", {"min": 2, "max": 9}, method="random"), "give a run_cap"),
        (
            with_parameter("k", {"min": 1.5, "max": 9}, method="random", run_cap=2),
            "use int_uniform",
        ),
        (with_parameter("tau", {"min": 0.0, "max": 3.0}, method="random", run_cap=2), "tau is 0.0"),
        (
            with_parameter(
                "tau", {"min": 0.1, "max": 1, "distribution": "normal"}, method="bayes", run_cap=2
            ),
            "distribution 'normal', which saepd does not know",
        ),
        (with_parameter("operator", {"values": ["mixtrue"]}), "did you mean 'mixture'"),
        (with_parameter("k", {"values": None}), "values is null: the grid is empty"),
        (with_parameter("k", {"values": [1], "probabilities": [1]}), "every value is as likely"),
        (with_parameter("coefficient", {"values": [float("nan")]}), "parameter coefficient is nan"),
        (with_parameter("coefficient", {"value": float("-inf")}), "parameter coefficient is -inf"),
        (with_parameter("coefficient", {"value": 10**400}), "parameter coefficient is 1000"),
        (GOOD | {"method": "random", "run_cap": 10**9}, "run_cap is 1000000000"),
        (ranged(min=0.0001, max=1000.0, distribution="log_uniform"), "use log_uniform_values"),
        (ranged(min=0.01, max=1, distribution="log_uniform"), "use log_uniform_values"),
        (ranged(min=-2, max=800, distribution="log_uniform"), r"e\^-2 to e\^800"),
        (ranged(min=1, max=8, distribution="q_log_uniform"), "use q_log_uniform_values"),
        (ranged(min=0, max=float("inf")), "max is inf: it must be a number"),
        (ranged(min=0, max=1e300, distribution="q_uniform"), "max is 1e"),
        (ranged(min=0, max=1e9, distribution="q_uniform", q=1e-9), "far too small beside"),
        (ranged(min=0, max=1, distribution="q_uniform", q=float("nan")), "q is nan"),
        (with_parameter("mode", {"values": ["ad"]}), "parameter mode is 'ad'"),
        (with_parameter("task", {"value": "opinionqa"}), "task is given without data"),
        (with_parameter("data", {"value": "a.json"}), "data is given without task"),
        (with_parameter("task", {"value": "opinonqa"}), "did you mean 'opinionqa'"),
        (with_parameter("task", {"value": "own"}), "give their file as items, or a folder"),
        (with_parameter("items", {"value": "a.jsonl"}), "give it with task own"),
        (
            GOOD
            | {
                "parameters": {
                    "task": {"value": "own"},
                    "data": {"value": "folder"},
                    "feedback": {"value": "f.csv"},
                }
            },
            "feedback is given without items",
        ),
        (with_parameter("perspectives", {"value": []}), "name one or more, each once"),
        (with_parameter("perspectives", {"value": ["A", "A"]}), "name one or more, each once"),
        (with_parameter("perspectives", {"value": 0}), "ask for at least one"),
        (with_parameter("features", {"parameters": {}}), "there is no parameter 'features'"),
    ],
)
def test_what_is_wrong_is_named_before_anything_runs(content, match):
    with pytest.raises(InputError, match=match):
        parse_sweep(content)


def test_a_file_that_is_no_yaml_is_named_with_its_line(tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text("method: grid\nparameters: {k: [1, 2\n")
    with pytest.raises(InputError, match=r"sweep\.yaml, line 3 is not YAML"):
        load_sweep(file)
    with pytest.raises(InputError, match=r"cannot read .*none\.yaml: No such file"):
        load_sweep(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="is no file"):
        load_sweep(tmp_path)


@pytest.mark.parametrize(
    ("payload", "match"),
    [
        ("x: ü".encode("utf-16"), "is in UTF-16: save it as UTF-8"),
        ("x: ü".encode("utf-32"), "is in UTF-32: save it as UTF-8"),
        ("x: ü".encode("utf-16-le"), "holds NUL bytes, as UTF-16 does"),
        ("method: grid\nname: Zürich".encode("latin-1"), r"line 2 is not UTF-8 \(byte 0xfc\)"),
    ],
)
def test_another_encoding_is_named(tmp_path, payload, match):
    file = tmp_path / "sweep.yaml"
    file.write_bytes(payload)
    with pytest.raises(InputError, match=match):
        load_sweep(file)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "method: grid\nname: Zürich\nmetric: {name: gain}\nparameters: {k: {value: 3}}\n",
        encoding="utf-8-sig",
    )
    assert load_sweep(file).name == "Zürich"


def test_values_can_be_fixed_from_outside(tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text("method: grid\nmetric: {name: gain}\nparameters: {k: {values: [1, 2]}}\n")
    assert len(sweep_points(load_sweep(file))) == 2
    [point] = sweep_points(load_sweep(file, {"k": 7}))
    assert point.config.fit.features.k == 7


def test_a_mapping_is_read_as_the_file_would_be(tmp_path):
    content = {
        "method": "grid",
        "metric": {"name": "gain"},
        "parameters": {"k": {"values": [2, 4]}, "block": {"value": 10}},
    }
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(content))
    assert load_sweep(content) == load_sweep(file)
    assert load_sweep(content, {"k": 7}) == load_sweep(file, {"k": 7})
    with pytest.raises(InputError, match="no parameter 'kk'"):
        load_sweep({**content, "parameters": {"kk": {"value": 1}}})


def test_a_file_does_not_switch_on_code_of_others(tmp_path):
    file = tmp_path / "sweep.yaml"
    text = "method: grid\nmetric: {name: gain}\nparameters: {trust_remote_code: {value: true}}\n"
    file.write_text(text)
    with pytest.raises(InputError, match="trust_remote_code would run code"):
        load_sweep(file)
    file.write_text(text.replace("trust_remote_code: {value: true}", "k: {value: 2}"))
    [point] = sweep_points(load_sweep(file, {"trust_remote_code": True}))
    assert point.config.where.trust_remote_code


def test_every_parameter_goes_where_its_dataclass_is():
    flat = point_config({}).flat()
    assert list(flat) == list(parameter_types())
    assert point_config(flat) == point_config({})
    changed = point_config({"k": 3, "alpha": 0.5, "seed": 4, "block": 20, "positions": "all"})
    assert (changed.fit.features.k, changed.merge.alpha, changed.draw.seed) == (3, 0.5, 4)
    assert (changed.where.block, changed.fit.direction.positions) == (20, "all")
    assert checked_value("weights", [0.5, 0.5]) == (0.5, 0.5)
    with pytest.raises(InputError, match="there is no parameter 'readut'"):
        check_name("readut")


def test_the_shipped_sweeps_can_be_read():
    from pathlib import Path

    files = sorted((Path(__file__).parents[3] / "scripts" / "sweeps").glob("*.yaml"))
    assert len(files) >= 4
    for file in files:
        assert load_sweep(file).parameters
    assert len(sweep_points(load_sweep(files[0].parent / "layers.yaml"))) == 216
