"""Models that the engine cannot run in its fast way, on both sides of the line."""

import logging

import architectures
import pytest
import torch
from architecture_configs import CONFIGS, tokenizer
from tiny import save_random

from saepd.branches.run import branch
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.models.load import load_model
from saepd.models.tokens import prompt_ids

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


def test_blocks_that_share_keys_are_steered_where_they_run_the_last_columns_alone(tmp_path):
    tok = tokenizer()
    config = CONFIGS["Gemma 4"](tok)
    config.num_kv_shared_layers = 2
    torch.manual_seed(0)
    model = load_model(save_random(config, tok, tmp_path / "tiny"), device="cpu")
    # Transformers' own generate asks for the last column's logits, and so do branches.
    vector = torch.randn(32)
    text = "Is it so?"
    prompt = torch.tensor([prompt_ids(model.tokenizer, text)])
    for positions in ("answer", "all"):
        direction = Direction("A", "blocks.2.hook_resid_post", AddVector(vector), positions)
        with torch.inference_mode(), direction.apply(model):
            whole = model(prompt)[0, -1]
            written = model.original_model.generate(
                prompt,
                max_new_tokens=1,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
        assert torch.allclose(written.logits[0][0], whole, atol=1e-4)
        [branched] = branch(model, [text], [direction])
        assert torch.allclose(branched[1], whole.log_softmax(-1), atol=1e-4)


def test_what_the_bridge_gets_wrong_is_refused():
    assert architectures.row_of("Qwen 3.5")["bridge"].startswith("refused: with hooks, tiny does")


def test_a_table_leaves_the_log_as_it_was():
    with architectures._quiet():
        assert not logging.getLogger("saepd").isEnabledFor(logging.WARNING)
    assert logging.getLogger("saepd").isEnabledFor(logging.WARNING)
