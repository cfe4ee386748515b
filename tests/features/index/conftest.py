"""An index of a tiny SAE over a few texts, built once."""

import pytest
from tiny import D_MODEL

from saepd.features.index.build import build_index
from saepd.features.index.config import IndexConfig

WORDS = ("bus", "tax", "sea")


@pytest.fixture(scope="session")
def texts():
    return [f"the {word} of {n} trees, and then {word} again." for n in range(12) for word in WORDS]


@pytest.fixture(scope="session")
def config():
    return IndexConfig(context_size=40)


@pytest.fixture(scope="session")
def tiny_topk(random_sae):
    return random_sae("topk", d_in=D_MODEL, d_sae=48, k=6)


@pytest.fixture(scope="session")
def index(llama, tiny_topk, texts, config, tmp_path_factory):
    return build_index(llama, tiny_topk, texts, tmp_path_factory.mktemp("index") / "x", config)
