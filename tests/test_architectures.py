"""Models that the engine cannot run in its fast way, on both sides of the line."""

import logging

import architectures
import pytest

# Several queries a key, positions by bias, states instead of keys, and norms after each block.
UNUSUAL = (
    "BLOOM",
    "Falcon, multi-query",
    "GPT-BigCode",
    "LFM2",
    "Llama 4",
    "Mamba",
    "OPT, normalised after, projected",
)


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_models_give_what_transformers_gives(name):
    row = architectures.row_of(name)
    assert [row[what] for what in ("bridge", "scores", "apply", "generate")] == ["right"] * 4


def test_what_the_bridge_gets_wrong_is_refused():
    assert architectures.row_of("Qwen 3.5")["bridge"].startswith("refused: with hooks, tiny does")


def test_a_table_leaves_the_log_as_it_was():
    with architectures._quiet():
        assert not logging.getLogger("saepd").isEnabledFor(logging.WARNING)
    assert logging.getLogger("saepd").isEnabledFor(logging.WARNING)
