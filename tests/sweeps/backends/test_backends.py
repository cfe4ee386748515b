import os
import time
from dataclasses import replace

import pandas as pd
import pytest
from tiny import SAME

from saepd.common.errors import InputError
from saepd.sweeps.backends.schedule import next_unit, units_of
from saepd.sweeps.backends.slurm import deal
from saepd.sweeps.config import RunConfig
from saepd.sweeps.results.frame import read_sweep, reuse_by_node
from saepd.sweeps.run import run_sweep
from saepd.sweeps.space.points import sweep_points

LOCAL = RunConfig(backend="slurm", cluster="local", workers=2)


def table(folder):
    return read_sweep(folder)[SAME].sort_values("key").reset_index(drop=True)


def same(left, right):
    # Packs of questions depend on how much memory is free, and sums in another order differ.
    pd.testing.assert_frame_equal(table(left), table(right), rtol=0, atol=1e-6)


@pytest.fixture
def wide(sweep_of):
    """Two seeds, so two prefixes, with six branch runs each."""
    return sweep_of(seed=[0, 1], k=[2, 4], coefficient=[1, 2, 3], operator=["mixture", "cad"])


def test_points_that_share_most_are_next_to_each_other(wide):
    points = sweep_points(wide)
    units = units_of(points)
    assert [len(unit.points) for unit in units] == [2] * 12
    assert {p.key for unit in units for p in unit.points} == {p.key for p in points}
    groups = [unit.group for unit in units]
    assert groups == sorted(groups, key=groups.index)
    for unit in units:
        assert len({p.config.fit for p in unit.points}) == 1
    assert [[len(share)] for share in deal(units, 2)] == [[6], [6]]
    assert len({unit.group for unit in deal(units, 2)[0]}) == 1
    assert sum(map(len, deal(units, 5))) == 12
    assert len(deal(units, 50)) == 12


def test_a_worker_is_given_what_it_has_then_what_nobody_has(wide):
    units = units_of(sweep_points(wide))
    first, second = units[0].group, units[-1].group
    assert next_unit(units, None, set()).group == first
    assert next_unit(units, second, {first}).group == second
    assert next_unit(units, None, {first}).group == second
    assert next_unit(units[:6], second, {first}).group == first


@pytest.fixture
def cluster(monkeypatch):
    """Two nodes of one CPU beside a head without any; nothing leaves this machine."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["tests", os.environ.get("PYTHONPATH", "")]))
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [made.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made, nodes
    ray.shutdown()
    made.shutdown()


def test_a_node_that_is_lost_half_way_costs_nothing_but_time(wide, tmp_path, cluster):
    made, nodes = cluster
    with pytest.raises(InputError, match="no room for a worker"):
        run_sweep(wide, tmp_path / "ray", RunConfig(backend="ray", gpus=0.5))
    run_sweep(wide, tmp_path / "local")
    removed = []

    def lose_a_node(_, step, steps):
        if step == 1:
            # While nothing is handed out, the slower of the two workers comes up too.
            time.sleep(12)
        if step >= 12 and len(reuse_by_node(tmp_path / "ray")) == 2 and not removed:
            removed.append(step)
            made.remove_node(nodes[0])

    done = run_sweep(wide, tmp_path / "ray", RunConfig(backend="ray"), lose_a_node)
    assert removed and removed[0] < 22
    assert (done.n_points, done.n_failed) == (24, 0)
    same(tmp_path / "ray", tmp_path / "local")
    frame = read_sweep(tmp_path / "ray")
    by_node = frame.groupby("node").size()
    # Both took part, and the one that stayed did the rest.
    assert len(by_node) == 2
    assert by_node.sum() == 24
    shares = reuse_by_node(tmp_path / "ray")
    print("share of prefix stages reused, per node:", {n[:8]: s for n, s in shares.items()})
    # Each node captures each prefix once at most.
    assert all(round((1 - shares[node]) * n) <= 2 for node, n in by_node.items())


def test_array_jobs_give_the_same_table(wide, tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["tests", os.environ.get("PYTHONPATH", "")]))
    run_sweep(wide, tmp_path / "local")
    done = run_sweep(wide, tmp_path / "slurm", LOCAL)
    assert (done.n_points, done.n_failed) == (24, 0)
    same(tmp_path / "slurm", tmp_path / "local")
    assert read_sweep(tmp_path / "slurm").worker.nunique() == 2
    assert not list((tmp_path / "slurm" / "inbox").iterdir())


def test_what_jobs_finished_while_no_driver_was_there_is_collected(small, tmp_path):
    pytest.importorskip("submitit")
    from saepd.sweeps.backends.slurm import _work
    from saepd.sweeps.run import work_settings

    run_sweep(small, tmp_path / "local")
    out = tmp_path / "left"
    (out / "inbox").mkdir(parents=True)
    config = replace(LOCAL, workers=1)
    _work(units_of(sweep_points(small)), work_settings(small, out, config), out / "inbox")
    assert len(list((out / "inbox").iterdir())) == 8
    run_sweep(small, out, config)
    assert not (out / "jobs").exists(), "nothing had to be submitted"
    same(out, tmp_path / "local")
