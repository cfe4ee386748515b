import torch
from tiny import D_MODEL

from saepd.branches.captured import capture_prompts
from saepd.branches.engine import turns
from saepd.branches.gradients import scores_at

SITE = "blocks.1.hook_resid_post"
PROMPTS = ["Is it so", "What is it::", "Why"]
OPTIONS = [["a", "no", "b c"], ["b", "no"], ["c", "a longer one", "d", "e"]]
N_VECTORS = [9, 0, 2]


def test_a_prompt_with_many_vectors_has_rows_no_wider_than_anothers(llama):
    captured = capture_prompts(llama, PROMPTS, SITE, continuations=OPTIONS)
    [(order, pack)] = captured.packs
    copies = [
        [turns.Copy(vector, list(range(len(OPTIONS[i])))) for vector in range(N_VECTORS[i])]
        for i in order
    ]
    rows, now = zip(*turns._turns(pack, copies, with_gradients=False), strict=True)
    ran = [
        (row, copy.vector)
        for of_turn, own in zip(rows, now, strict=True)
        for row, some in zip(of_turn, own, strict=True)
        for copy in some
    ]
    assert sorted(ran) == [(row, c.vector) for row, own in enumerate(copies) for c in own]
    # The widest prompt's one vector fills a row, which two of the shorter texts' do not.
    widths = {row.prompt: row.width for row in turns._rows(pack, copies, 1024)}
    assert max(widths.values()) == widths[order.index(2)]
    assert max(map(len, rows)) > 2


def test_scores_do_not_depend_on_how_vectors_are_spread_over_rows(llama, monkeypatch):
    captured = capture_prompts(llama, PROMPTS, SITE, continuations=OPTIONS)
    generator = torch.Generator().manual_seed(0)
    vectors = [torch.randn(n, 1, D_MODEL, generator=generator) for n in N_VECTORS]
    right = scores_at(captured, vectors, [SITE])
    monkeypatch.setattr(turns, "_SHARE_OF_SHARED", 100.0)
    side_by_side = scores_at(captured, vectors, [SITE])
    monkeypatch.setattr(turns, "token_budget", lambda _: 1)
    alone = scores_at(captured, vectors, [SITE])
    for one, other, third in zip(right, side_by_side, alone, strict=True):
        assert torch.allclose(one, other, atol=1e-5) and torch.allclose(one, third, atol=1e-5)
