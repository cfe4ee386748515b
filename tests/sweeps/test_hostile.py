"""Whatever a file of a sweep holds: it is read, or refused in one sentence, and nothing else."""

import json
import sqlite3

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saepd.common.errors import InputError
from saepd.sweeps.backends.slurm import _collect
from saepd.sweeps.results.frame import finished, importance, pareto, read_sweep
from saepd.sweeps.results.store import RESULTS_FILE, ResultStore
from saepd.sweeps.space.parameters import parameter_types
from saepd.sweeps.space.points import sweep_points
from saepd.sweeps.space.space import DISTRIBUTIONS
from saepd.sweeps.space.sweep_file import load_sweep, parse_sweep

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["add", "mixture", "answer", "all", "own", "float32", "gain", "~", "1e-1"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "value": VALUES,
        "values": st.lists(SCALARS, max_size=4) | VALUES,
        "min": SCALARS,
        "max": SCALARS,
        "q": SCALARS,
        "distribution": st.sampled_from(DISTRIBUTIONS) | SCALARS,
    },
)
SWEEPS = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["grid", "random", "bayes"]) | SCALARS,
        "metric": st.sampled_from([{"name": "gain"}, {"name": "auroc"}]) | VALUES,
        "parameters": st.dictionaries(
            st.sampled_from(list(parameter_types())) | st.text(max_size=6),
            ENTRIES | VALUES,
            max_size=4,
        ),
    },
    optional={"run_cap": st.integers(1, 30) | SCALARS, "name": VALUES, "program": VALUES},
)
FUZZED = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def refusal(action):
    """What is said where something is refused; empty where it is read."""
    try:
        action()
    except InputError as error:
        return str(error)
    return ""


def draw_points(sweep):
    """All of a small sweep's points; a large grid is left at that."""
    if sweep.method != "bayes" and (sweep.run_cap or 100) <= 100:
        sweep_points(sweep)


@FUZZED
@given(SWEEPS | VALUES)
def test_any_content_is_a_sweep_or_refused(content):
    refusal(lambda: draw_points(parse_sweep(content)))


@FUZZED
@given(st.binary(max_size=300) | SWEEPS.map(lambda c: json.dumps(c).encode()))
def test_any_bytes_are_a_sweep_file_or_refused(tmp_path, payload):
    file = tmp_path / "sweep.yaml"
    file.write_bytes(payload)
    said = refusal(lambda: draw_points(load_sweep(file)))
    assert not said or str(file) in said or "grid has" in said


RESULTS = st.fixed_dictionaries(
    {},
    optional={
        "metrics": st.dictionaries(st.sampled_from(["gain", "kl_to_base"]), SCALARS) | VALUES,
        "intervals": st.dictionaries(st.text(max_size=4), VALUES) | VALUES,
        "rows": st.lists(st.fixed_dictionaries({"perspective": SCALARS})) | VALUES,
        "stages": st.lists(VALUES, max_size=3),
        "content": VALUES,
        "error": VALUES,
    },
)
ROWS = st.tuples(
    st.text(max_size=4) | st.integers(0, 9) | st.binary(max_size=4),
    st.sampled_from(["finished", "failed"]),
    st.dictionaries(st.sampled_from(["k", "data", "model"]), SCALARS).map(json.dumps)
    | VALUES.map(json.dumps)
    | st.text(max_size=20)
    | st.binary(max_size=20),
    RESULTS.map(json.dumps) | st.text(max_size=20),
)


@FUZZED
@given(st.lists(ROWS, min_size=1, max_size=3))
def test_any_rows_are_results_or_refused(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("store")
    ResultStore(folder)
    with sqlite3.connect(folder / RESULTS_FILE) as connection:
        for row in rows:
            connection.execute(
                "INSERT OR IGNORE INTO results (key, status, parameters, result) "
                "VALUES (?, ?, ?, ?)",
                row,
            )

    def analyse():
        frame = read_sweep(folder)
        finished(frame, "gain")
        importance(frame, "gain")
        pareto(frame, "gain")

    refusal(analyse)


@FUZZED
@given(st.binary(max_size=400))
def test_any_bytes_are_a_store_or_refused(tmp_path_factory, payload):
    folder = tmp_path_factory.mktemp("bytes")
    (folder / RESULTS_FILE).write_bytes(payload)
    assert str(folder) in refusal(lambda: read_sweep(folder))


@FUZZED
@given(
    st.binary(max_size=100) | RESULTS.map(lambda r: json.dumps({"key": "a", "result": r}).encode())
)
def test_any_file_of_a_job_is_an_outcome_or_refused(tmp_path_factory, payload):
    inbox = tmp_path_factory.mktemp("inbox")
    (inbox / "a.json").write_bytes(payload)
    assert "a.json" in refusal(lambda: list(_collect(inbox)))
