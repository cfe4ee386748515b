from pathlib import Path

import pytest

from saepd.common.errors import InputError
from saepd.sweeps.results.frame import finished, read_sweep
from saepd.sweeps.run import run_sweep
from saepd.sweeps.space.search import JOURNAL, study_name


@pytest.fixture
def search_of(sweep_of):
    """A search over two numbers, which no forward pass tells apart."""

    def make(run_cap=3, high=2.0, **values):
        ranges = {"alpha": {"min": 0.0, "max": high}, "tau": {"min": 0.1, "max": 0.9}}
        return sweep_of(method="bayes", run_cap=run_cap, k=2, **ranges, **values)

    return make


def test_a_history_is_of_its_values_and_files(search_of, files, tmp_path):
    file = tmp_path / "items.jsonl"
    file.write_text(Path(files["data"]).read_text())
    name = study_name(search_of(data=str(file)))
    assert study_name(search_of(run_cap=9, data=str(file))) == name
    assert study_name(search_of(high=3.0, data=str(file))) != name
    file.write_text(Path(files["data"]).read_text().replace("soup", "stew"))
    assert study_name(search_of(data=str(file))) != name


def test_a_corrected_file_is_searched_anew(search_of, files, tmp_path):
    file = tmp_path / "items.jsonl"
    file.write_text(Path(files["data"]).read_text())
    sweep, out = search_of(data=str(file)), tmp_path / "out"
    assert run_sweep(sweep, out).n_points == 3
    # The cap is reached.
    assert run_sweep(sweep, out).n_points == 0
    file.write_text(Path(files["data"]).read_text().replace("soup", "stew"))
    assert run_sweep(sweep, out).n_points == 3
    frame = read_sweep(out)
    assert frame.changed.tolist() == ["data"] * 3 + [""] * 3
    assert set(finished(frame, "gain").key) == set(frame.key[3:])


@pytest.mark.parametrize("line", ["no json\n", "[1, 2]\n", '{"op_code": 0}\n', '{"op_code": 99}\n'])
def test_a_damaged_history_is_named(search_of, tmp_path, line):
    out = tmp_path / "out"
    out.mkdir()
    (out / JOURNAL).write_text(line)
    with pytest.raises(InputError, match=r"optuna\.log cannot be read as a search's history"):
        run_sweep(search_of(), out)
