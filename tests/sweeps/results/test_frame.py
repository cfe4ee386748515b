import json

import numpy as np
import pandas as pd
import pytest

import saepd
from saepd.cli import main
from saepd.common.errors import InputError
from saepd.sweeps.point.identity import point_content
from saepd.sweeps.results.frame import finished, importance, pareto, read_sweep, varied
from saepd.sweeps.results.outcome import PointOutcome
from saepd.sweeps.results.pictures import feedback_growth, heat_maps, pictures_of, write_pictures
from saepd.sweeps.results.store import ResultStore
from saepd.sweeps.run import run_sweep
from saepd.sweeps.space.points import numbered


@pytest.fixture
def made(tmp_path):
    """A store whose gains are a known function of the parameters: 2 block + coefficient / 10."""
    store = ResultStore(tmp_path)
    combinations = [
        {"block": b, "coefficient": float(c), "n_feedback": n}
        for b in (10, 15, 20)
        for c in (1, 2, 4)
        for n in (10, 50)
    ]
    for point in numbered(combinations):
        flat = point.config.flat()
        gain = 2 * flat["block"] / 10 + flat["coefficient"] / 10
        moved = flat["coefficient"] * flat["block"]
        result = {
            "metrics": {"gain": gain, "kl_to_base": moved},
            "intervals": {"gain": [gain - 1, gain + 1]},
            "rows": [
                {"perspective": p, "gain": gain + i} for i, p in enumerate(("north", "south"))
            ],
            "stages": [{"kind": "prefix", "key": "a", "reused": False, "n_forwards": 3}],
            "content": point_content(point.config),
        }
        store.add(PointOutcome(point.key, flat, result))
    store.add(PointOutcome("failed", combinations[0], {"error": "InputError: no"}, failed=True))
    return tmp_path


def test_the_frame_has_a_row_for_each_point(made):
    frame = saepd.read_sweep(made)
    assert len(frame) == 19
    assert varied(frame[frame.status == "finished"]) == ["block", "n_feedback", "coefficient"]
    best = finished(frame, "gain")
    assert len(best) == 18
    assert (best.iloc[0].block, best.iloc[0].coefficient) == (20, 4)
    assert (best.gain_high - best.gain_low).to_numpy() == pytest.approx(2)
    assert (best["gain/south"] - best["gain/north"]).to_numpy() == pytest.approx(1)
    assert frame[frame.status == "failed"].error.item() == "InputError: no"
    assert frame.n_forwards.sum() == 18 * 3


def test_importance_is_the_share_of_variance_that_a_parameter_explains(made):
    shares = importance(read_sweep(made), "gain")
    blocks, coefficients = np.array([2.0, 3.0, 4.0]).var(), np.array([0.1, 0.2, 0.4]).var()
    assert list(shares) == ["block", "coefficient", "n_feedback"]
    assert shares["block"] == pytest.approx(blocks / (blocks + coefficients))
    assert shares["coefficient"] == pytest.approx(coefficients / (blocks + coefficients))
    assert shares["n_feedback"] == pytest.approx(0, abs=1e-12)


def test_importance_cuts_ranges_into_parts():
    values = np.random.default_rng(0).uniform(size=(600, 2))
    frame = pd.DataFrame({"alpha": values[:, 0], "tau": values[:, 1], "gain": 3 * values[:, 0]})
    shares = importance(frame, "gain")
    assert shares["alpha"] > 0.95
    assert shares["tau"] < 0.05


def test_nothing_beats_the_pareto_points(made):
    frame = read_sweep(made)
    front = pareto(frame, "gain")
    rest = finished(frame, "gain")
    for row in front.itertuples():
        assert not ((rest.gain > row.gain) & (rest.kl_to_base <= row.kl_to_base)).any()
    for row in rest.itertuples():
        assert ((front.gain >= row.gain) & (front.kl_to_base <= row.kl_to_base)).any()


def test_results_show_themselves(made):
    results = saepd.sweep_results(made)
    frame = read_sweep(made)
    assert list(results.frame().key) == list(frame.key)
    best = results.best(3)
    assert list(best.columns) == [
        "block", "n_feedback", "coefficient", "gain", "gain_low", "gain_high", "kl_to_base",
    ]  # fmt: skip
    assert best.gain.tolist() == finished(frame, "gain").gain.head(3).tolist()
    assert results.pareto().gain.tolist() == pareto(frame, "gain").gain.tolist()
    assert results.importance() == importance(frame, "gain")
    assert set(results.pictures()) == set(pictures_of(frame, "gain"))
    assert repr(results) == (
        f"SweepResults(18 points; best gain {best.gain[0]:.4g} with block=20, "
        f"n_feedback={best.n_feedback[0]}, coefficient=4.0)"
    )
    html = results._repr_html_()
    assert "1 points failed" in html
    assert f"{best.gain[0]:.4f}" in html
    with pytest.raises(InputError, match="no point of this sweep has a auroc"):
        saepd.sweep_results(made, "auroc")


def test_pictures_show_the_numbers(made, tmp_path):
    frame = read_sweep(made)
    assert set(pictures_of(frame, "gain")) == {
        "parallel_coordinates",
        "heat_maps",
        "feedback_growth",
    }
    figure = heat_maps(frame, "gain")
    assert [a.text for a in figure.layout.annotations] == ["all", "north", "south"]
    table = np.array(figure.data[0].z)
    assert table.shape == (3, 3)
    assert table[2, 1] == pytest.approx(4.2)
    assert np.array(figure.data[2].z)[2, 1] == pytest.approx(5.2)
    growth = feedback_growth(frame, "gain", "block")
    assert len(growth.data) == 3
    assert list(growth.data[0].x) == [10, 50]
    # The median over coefficients 1, 2 and 4.
    assert list(growth.data[0].y) == pytest.approx([2.2, 2.2])
    for path in write_pictures(frame, "gain", tmp_path / "pictures"):
        assert "Plotly.newPlot" in path.read_text()


def test_what_cannot_be_read_is_named(made, tmp_path):
    with pytest.raises(InputError, match="holds no sweep"):
        read_sweep(tmp_path / "nothing")
    with pytest.raises(InputError, match="no point of this sweep has a auroc"):
        finished(read_sweep(made), "auroc")
    with pytest.raises(InputError, match="did you mean 'gain'"):
        finished(read_sweep(made), "gian")


def test_the_commands_plan_run_and_show(files, tmp_path, capsys, monkeypatch):
    import yaml

    monkeypatch.setenv("COLUMNS", "200")
    content = {
        "method": "grid",
        "metric": {"name": "gain"},
        "parameters": {k: {"value": v} for k, v in files.items()}
        | {"k": {"values": [2, 4]}, "operator": {"values": ["mixture", "cad"]}},
    }
    file, out = tmp_path / "tiny.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(content))
    assert main(["sweep", str(file), "--out", str(out), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "k 4, operator cad" in told
    assert "4 points, 0 finished" in told
    assert not out.exists()
    assert main(["sweep", str(file), "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "4 points: 0 were finished, 4 run" in told
    assert "forward passes:" in told
    assert main(["sweep", str(file), "--out", str(out), "--set", "k=3", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "2 points, 0 finished" in told
    assert "minutes" in told
    pictures = tmp_path / "pictures"
    assert main(["sweep", "show", str(out), "--pictures", str(pictures)]) == 0
    told = capsys.readouterr().out
    assert "best of 4 points by gain" in told
    assert "Pareto" in told
    assert (pictures / "parallel_coordinates.html").exists()
    assert main(["sweep", "show", str(out), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 4
    assert main(["sweep", "point", "--out", str(out), "k=bad"]) == 2
    assert "parameter k is 'bad'" in capsys.readouterr().err
    assert main(["sweep", str(tmp_path / "none.yaml"), "--out", str(out)]) == 2
    assert "none.yaml: No such file" in capsys.readouterr().err
    assert main(["sweep", "shwo", "--out", str(out)]) == 2


def test_the_plan_counts_the_stages_that_run(small, tmp_path):
    from saepd.sweeps.space.plan import passes_computed, plan_sweep
    from saepd.sweeps.space.points import sweep_points

    points = sweep_points(small)
    plan = plan_sweep(points, set())
    assert plan.stages == {"prefix": 1, "feedback": 1, "directions": 2, "branches": 4}
    assert plan.passes < plan.passes_alone / 2
    run_sweep(small, tmp_path)
    outcomes = ResultStore(tmp_path).outcomes()
    assert sum(passes_computed(o)[0] for o in outcomes) == plan.passes
    done = plan_sweep(points, {o.key for o in outcomes})
    assert (done.n_finished, done.passes) == (8, 0)
