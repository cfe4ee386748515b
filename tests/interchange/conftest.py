from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import D_MODEL

from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.interchange.record import ModelFacts, SiteVector, SteeringRecord

FACTS = ModelFacts("tiny", "llama", n_blocks=4, d_model=D_MODEL, blocks_at="layers")


def vector(seed):
    return np.random.default_rng(seed).normal(size=D_MODEL).astype(np.float32)


@pytest.fixture
def record():
    """Vectors at the outputs of blocks 1 and 2, each made of two that add up or of one."""
    sites = (
        SiteVector("blocks.1.hook_resid_post", 1, vector(1), "every"),
        SiteVector("blocks.2.hook_resid_pre", 1, vector(2), "every"),
        SiteVector("blocks.2.hook_out", 2, vector(3), "every"),
    )
    return SteeringRecord("left", sites, FACTS)


@pytest.fixture
def plain():
    """Factory of directions that add a random vector."""

    def make(block=1, positions="every", perspective="left", seed=0, norm=1.0, **more):
        v = torch.from_numpy(vector(seed))
        site = more.pop("hook_name", f"blocks.{block}.hook_resid_post")
        return Direction(perspective, site, AddVector(norm * v / v.norm()), positions, **more)

    return make


@pytest.fixture
def written(tmp_path):
    """Factory: the first file that a writer makes of a record, on disk."""

    def write(writer, record) -> Path:
        files = writer(record, "left")
        for name, payload in files.items():
            (tmp_path / name).write_bytes(payload)
        return tmp_path / next(iter(files))

    return write
