"""A small sweep of a tiny model, whose SAE and questions are files as a user's would be."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny import save_tiny_model

from saepd.sweeps.space.sweep_file import parse_sweep


def write_items(folder: Path, n: int = 16) -> Path:
    """Questions of two perspectives who answer differently, in the user's own format."""
    lines = []
    for i in range(n):
        options = ["Yes", "No"] if i % 2 else ["More", "Less", "Same"]
        for j, perspective in enumerate(("north", "south")):
            shares = np.random.default_rng([i, j]).dirichlet(np.ones(len(options)))
            row = {"id": f"q{i}", "prompt": f"Is soup {i} good?", "options": options}
            row |= {"perspective": perspective, "distribution": shares.round(4).tolist()}
            lines.append(json.dumps(row))
    path = folder / "items.jsonl"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="session")
def files(tmp_path_factory, random_sae):
    """Parameters that name a tiny model, an SAE and items on disk."""
    folder = tmp_path_factory.mktemp("sweep files")
    model = save_tiny_model("llama", folder / "tiny")
    sae = random_sae(d_sae=24)
    # An SAE with random weights explains nothing, so it is its transpose that decodes.
    import torch

    with torch.no_grad():
        q, _ = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(3)))
        sae = random_sae(d_sae=64)
        sae.W_enc.copy_(torch.cat([q, -q], 1))
        sae.W_dec.copy_(torch.cat([q.T, -q.T], 0))
        sae.b_enc.zero_()
        sae.b_dec.zero_()
    sae.save_model(folder / "sae")
    return {
        "model": str(model),
        "sae": str(folder / "sae"),
        "task": "own",
        "data": str(write_items(folder)),
        "n_feedback": 6,
        "feedback_kind": "distribution",
        "device": "cpu",
        "max_density": 1.0,
        "min_stability": 0.0,
    }


@pytest.fixture
def sweep_of(files):
    """A sweep of these files over the parameters that are given as lists."""

    def make(method="grid", metric="gain", run_cap=None, name="tiny", **values):
        parameters = {k: {"value": v} for k, v in files.items()}
        # What is None here is left at its default.
        parameters = {k: v for k, v in parameters.items() if values.get(k, 0) is not None}
        values = {k: v for k, v in values.items() if v is not None}
        for key, value in values.items():
            entry = {"values": value} if isinstance(value, list) else value
            parameters[key] = entry if isinstance(entry, dict) else {"value": entry}
        content = {"method": method, "metric": {"name": metric}, "parameters": parameters}
        if run_cap:
            content["run_cap"] = run_cap
        return parse_sweep(content, name)

    return make


@pytest.fixture
def small(sweep_of):
    """Two k, two coefficients and two merges: 8 points, 1 prefix, 4 branch runs."""
    return sweep_of(k=[2, 4], coefficient=[1, 3], operator=["mixture", "pluralistic"])


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in another order differ in their last digits; so that all processes add alike."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
