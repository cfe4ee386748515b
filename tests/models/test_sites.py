import numpy as np
import pytest
import torch
from tiny import ARCHITECTURES, D_MODEL

from saepd.common.errors import InputError
from saepd.models import batching
from saepd.models.sites import read_site

SITES = ("blocks.2.hook_resid_post", "blocks.0.hook_mlp_out", "blocks.1.attn.hook_z", "hook_embed")
TEXTS = ["Short.", "A rather longer text than the first one", "<|start|>user\nHi<|end|>", "b", "cd"]


def rows_of(model):
    return [model.tokenizer(text).input_ids for text in TEXTS]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("budget", [1, 60, 4096])
def test_a_row_gives_the_same_alone_padded_and_in_a_batch(
    tiny_bridge, monkeypatch, architecture, budget
):
    monkeypatch.setattr(batching, "_ENOUGH_ON_CPU", budget)
    model, packs = tiny_bridge(architecture), []

    def collect(batch):
        packs.append(batch.indices)
        real = batch.prompts.attention.bool()
        return [
            {name: held[row, real[row]].clone() for name, held in batch.held.items()}
            for row in range(len(batch.indices))
        ]

    found = read_site(model, SITES, rows_of(model), collect)
    assert (len(packs) == len(TEXTS)) == (budget == 1)
    for row, own in zip(rows_of(model), found, strict=True):
        _, cache = model.run_with_cache(torch.tensor([row]))
        for name in SITES:
            torch.testing.assert_close(own[name], cache[name][0].flatten(1), atol=1e-5, rtol=1e-5)
        assert own["hook_embed"].shape == (len(row), D_MODEL)


def test_counted_positions_are_neither_padding_nor_special_nor_first(llama):
    rows = rows_of(llama)

    def collect(batch):
        tokens = [t[c].tolist() for t, c in zip(batch.prompts.tokens, batch.counted, strict=True)]
        means = batch.mean(batch.held["hook_embed"])
        return list(zip(tokens, means, strict=True))

    special = set(llama.tokenizer.all_special_ids)
    for row, (kept, mean) in zip(
        rows, read_site(llama, ["hook_embed"], rows, collect), strict=True
    ):
        assert kept == [t for i, t in enumerate(row) if i > 0 and t not in special]
        by_hand = llama.embed(torch.tensor(kept, dtype=torch.long)).sum(0) / max(1, len(kept))
        torch.testing.assert_close(mean, by_hand, atol=1e-6, rtol=1e-5)


def test_nothing_runs_above_the_highest_site(llama):
    ran = []
    handles = [
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
        for i, block in enumerate(llama.blocks)
    ]
    try:
        read_site(llama, [SITES[1], "blocks.2.ln1.hook_normalized"], [[1, 2]], list_of)
    finally:
        for handle in handles:
            handle.remove()
    assert ran == [0, 1]


def list_of(batch):
    return [None] * len(batch.indices)


def test_no_hook_stays_and_those_of_the_user_do(llama, hook_count):
    seen = []
    llama.add_hook("hook_embed", lambda h, hook: seen.append(h.shape))
    before = hook_count(llama)
    try:
        read_site(llama, SITES, [[1, 2, 3]], list_of)
        with pytest.raises(ZeroDivisionError):
            read_site(llama, SITES, [[1, 2, 3]], lambda batch: [1 / 0])
        assert hook_count(llama) == before
        assert len(seen) == 2
    finally:
        llama.reset_hooks()


def test_packs_are_halved_when_memory_ends(llama):
    sizes = []

    def collect(batch):
        if len(batch.indices) > 2:
            raise torch.OutOfMemoryError
        sizes.append(len(batch.indices))
        return batch.indices

    with pytest.warns(UserWarning, match="out of memory"):
        assert read_site(llama, SITES, [[1, 2, 3]] * 8, collect) == list(range(8))
    assert sizes == [2, 2, 2, 2]


def test_what_is_collected_counts_for_the_size_of_a_pack(llama, monkeypatch):
    monkeypatch.setattr(batching, "_ENOUGH_ON_CPU", 40)
    sizes = []

    def collect(batch):
        sizes.append(len(batch.indices))
        return batch.indices

    bytes_each = batching.bytes_per_token(llama)
    read_site(llama, SITES, [[1] * 10] * 4, collect, collected_bytes=bytes_each)
    assert sizes == [2, 2]


def test_models_without_position_ids_get_rows_of_one_length(llama, monkeypatch):
    forward, shapes = llama.original_model.forward, []

    def without_positions(input_ids, attention_mask):
        shapes.append(input_ids.shape)
        return forward(input_ids=input_ids, attention_mask=attention_mask)

    monkeypatch.setattr(llama.original_model, "forward", without_positions)
    found = read_site(
        llama, ["blocks.1.hook_resid_post"], [[5, 6], [5, 6, 7], [8, 9]], lambda b: b.indices
    )
    assert found == [0, 1, 2]
    assert sorted(map(tuple, shapes)) == [(1, 3), (2, 2)]


@pytest.mark.parametrize(
    ("names", "row", "match"),
    [
        (["blocks.9.hook_resid_post"], [1], r"has no site 'blocks\.9\.hook_resid_post'"),
        (["hook_embed"], [1] * 257, "257 tokens, but the model's context holds 256"),
    ],
)
def test_what_cannot_be_read_is_refused(llama, names, row, match):
    with pytest.raises(InputError, match=match):
        read_site(llama, names, [row], list_of)


def test_results_are_in_the_order_of_the_rows(llama):
    rows = [[1] * n for n in np.random.default_rng(0).integers(1, 30, 40)]
    lengths = read_site(llama, ["hook_embed"], rows, lambda b: b.prompts.attention.sum(1).tolist())
    assert lengths == [len(row) for row in rows]
