import pytest
import torch
from branched import OPTIONS, PROMPTS, close
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import ARCHITECTURES, D_MODEL, N_LAYERS

from saepd.branches.captured import capture_prompts
from saepd.branches.engine import pack
from saepd.branches.engine.decoding import MIN_SHARED
from saepd.branches.run import branch, next_token_log_probs, score_continuations
from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, EditLatents, Reconstruct
from saepd.models import batching

MODES = ("dense", "add", "scale", "clamp", "ablate", "reconstruct")
EARLY = ("all", "prompt")
# Of these the long prompts' shared part is longer than MIN_SHARED.
LATE = ("answer", "generated", "last(3)", 'after("::")')
SITES = ("resid_pre", "resid_post", "mlp_out", "attn_out")
SHORT = ("a::b", "c::", "de::f")
# So alike in length that they run in one pack.
ALIKE = (PROMPTS[2], PROMPTS[4], "A third that is about as long as the other two of its kind::why")

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


def site(name, block):
    return f"blocks.{block}.hook_{name}"


def direction(random_sae, mode, positions="answer", hook_name="blocks.1.hook_resid_post", seed=0):
    """An edit that is large enough to be seen and small enough to leave float32 its digits."""
    generator = torch.Generator().manual_seed(seed)
    settings = {"positions": positions, "coefficient": 0.8}
    if mode == "dense":
        vector = torch.randn(D_MODEL, generator=generator)
        return Direction(f"{mode} {positions}", hook_name, AddVector(vector), **settings)
    sae = random_sae("topk" if seed % 2 else "standard", d_sae=24, hook_name=hook_name)
    latents = torch.randperm(24, generator=generator)[:6]
    values = None if mode == "ablate" else torch.randn(6, generator=generator)
    edit = Reconstruct(sae) if mode == "reconstruct" else EditLatents(sae, latents, values, mode)
    return Direction(f"{mode} {positions}", hook_name, edit, **settings)


def branches_change(log_probs, directions):
    """Whether a branch differs from the base where it should, and nowhere else."""
    base = log_probs[:, :1]
    changed = (log_probs[:, 1:] - base).abs().amax(dim=(0, 2)) > 1e-3
    expected = [d.positions != "generated" for d in directions]
    return changed.tolist() == expected


# --- branched is hooked ---


@every_architecture
@pytest.mark.parametrize("specs", [EARLY, LATE], ids=["early", "late"])
@pytest.mark.parametrize(
    ("name", "block"), [(s, b) for i, s in enumerate(SITES) for b in ((0, 3) if i < 2 else (1,))]
)
def test_branch_is_the_hooked_forward(tiny_bridge, random_sae, architecture, name, block, specs):
    model, hook_name = tiny_bridge(architecture), site(name, block)
    # Every mode meets every position in one architecture or another.
    shift = ARCHITECTURES.index(architecture) + block
    directions = [
        direction(random_sae, MODES[(i + shift) % len(MODES)], spec, hook_name, seed=i)
        for i, spec in enumerate((*specs, *specs))
    ]
    got = branch(model, PROMPTS, directions)
    assert got.shape == (len(PROMPTS), 1 + len(directions), int(model.cfg.d_vocab))
    close(got, branch(model, PROMPTS, directions, reference=True))
    assert branches_change(got, directions)


@pytest.mark.parametrize("positions", [*EARLY, *LATE])
def test_every_mode_at_every_position(llama, random_sae, positions):
    directions = [direction(random_sae, mode, positions, seed=i) for i, mode in enumerate(MODES)]
    got = branch(llama, PROMPTS, directions)
    close(got, branch(llama, PROMPTS, directions, reference=True))
    assert branches_change(got, directions)


@every_architecture
@pytest.mark.parametrize(
    "specs", [EARLY, [s for s in LATE if s != "generated"]], ids=["early", "late"]
)
def test_branches_of_several_directions(tiny_bridge, random_sae, architecture, specs):
    model = tiny_bridge(architecture)
    edits = [
        direction(random_sae, mode, specs[i % len(specs)], site(name, block), seed=i)
        for i, (mode, name, block) in enumerate(
            [
                ("dense", "resid_post", 0),
                ("clamp", "resid_post", 0),
                ("add", "mlp_out", 1),
                ("scale", "resid_pre", 2),
                ("ablate", "resid_post", 2),
                ("dense", "resid_post", N_LAYERS - 1),
            ]
        )
    ]
    # One site alone, two edits of one site, sites in both orders, all of them, and the last alone.
    chosen = [edits[:1], edits[:2], [edits[4], edits[2]], edits, edits[5]]
    got = branch(model, PROMPTS, chosen)
    close(got, branch(model, PROMPTS, chosen, reference=True))
    rows = got[0].exp()
    assert torch.pdist(rows).min() > 1e-4


@pytest.mark.parametrize("positions", ["answer", "all"])
def test_two_names_of_one_site(llama, random_sae, positions):
    names = ("blocks.1.hook_resid_post", "blocks.1.hook_out")
    assert llama.hook_dict[names[0]] is llama.hook_dict[names[1]]
    one, other = (direction(random_sae, "dense", positions, n, seed=i) for i, n in enumerate(names))
    expected = branch(llama, PROMPTS, [one, other, one + other], reference=True)
    got = branch(llama, PROMPTS, [one, other, [one, other]])
    close(got, expected)


def test_the_base_is_the_model_itself(llama, random_sae):
    got = branch(llama, PROMPTS, [direction(random_sae, "dense", "all")])[:, 0]
    for prompt, row in zip(PROMPTS, got, strict=True):
        tokens = torch.tensor([llama.tokenizer(prompt).input_ids])
        close(row, llama(tokens)[0, -1].log_softmax(-1))


@every_architecture
def test_without_directions_only_the_base_is_read(tiny_bridge, random_sae, architecture):
    model = tiny_bridge(architecture)
    alone = next_token_log_probs(model, PROMPTS, [])
    assert alone.shape == (len(PROMPTS), 1, int(model.cfg.d_vocab))
    close(alone, branch(model, PROMPTS, [direction(random_sae, "dense")])[:, :1])
    close(alone, next_token_log_probs(model, PROMPTS, [], reference=True))


@every_architecture
@pytest.mark.parametrize("positions", ["all", "answer", 'after("::")'])
def test_a_row_of_a_batch_is_the_prompt_alone(tiny_bridge, random_sae, architecture, positions):
    model = tiny_bridge(architecture)
    directions = [direction(random_sae, "dense", positions), direction(random_sae, "clamp", "all")]
    for chosen in (directions[:1], directions):
        together = branch(model, PROMPTS, chosen)
        alone = torch.cat([branch(model, [prompt], chosen) for prompt in PROMPTS])
        close(together, alone)


def test_prompts_keep_their_order_over_several_packs(llama, random_sae, monkeypatch):
    directions = [direction(random_sae, "dense")]
    expected = branch(llama, PROMPTS, directions)
    scores = score_continuations(llama, PROMPTS, OPTIONS, directions)
    monkeypatch.setattr(batching, "_ENOUGH_ON_CPU", 150)
    captures = count_calls(monkeypatch, pack, "capture")
    close(branch(llama, PROMPTS, directions), expected)
    assert 2 <= len(captures) < len(PROMPTS)
    for one, other in zip(
        score_continuations(llama, PROMPTS, OPTIONS, directions), scores, strict=True
    ):
        close(one[0], other[0])
        assert one[1] == other[1]


# --- what is shared ---


def count_calls(monkeypatch, module, name):
    calls, function = [], getattr(module, name)

    def counted(*args, **kwargs):
        calls.append((args, kwargs))
        return function(*args, **kwargs)

    monkeypatch.setattr(module, name, counted)
    return calls


@pytest.mark.parametrize(
    ("prompts", "positions", "in_columns"),
    [
        (PROMPTS[2:3], "answer", True),
        (ALIKE, "answer", True),
        (ALIKE, "generated", True),
        (ALIKE, "all", False),
        (SHORT, "answer", False),
        # The opening token and these, of which only the last is edited.
        (["a" * MIN_SHARED], "answer", True),
        (["a" * (MIN_SHARED - 1)], "answer", False),
    ],
)
def test_a_long_enough_start_runs_once_for_all(
    llama, random_sae, monkeypatch, prompts, positions, in_columns
):
    directions = [direction(random_sae, "dense", positions) for _ in range(3)]
    rows = count_calls(monkeypatch, pack, "resume_in_rows")
    columns = count_calls(monkeypatch, pack, "resume_in_columns")
    got = branch(llama, prompts, directions)
    assert (len(columns), len(rows)) == ((1, 0) if in_columns else (0, 1))
    monkeypatch.undo()
    close(got, branch(llama, prompts, directions, reference=True))


def test_where_a_window_is_shorter_than_the_text_branches_are_rows(
    tiny_bridge, random_sae, monkeypatch
):
    gemma, edits = tiny_bridge("gemma2"), [direction(random_sae, "dense")]
    columns = count_calls(monkeypatch, pack, "resume_in_columns")
    branch(gemma, ["a" * 14], edits)
    assert len(columns) == 1
    branch(gemma, ["a" * 16], edits)
    score_continuations(gemma, ["a" * 10], [["bb", "cccccc"]], edits)
    assert len(columns) == 1
    score_continuations(gemma, ["a" * 10], [["bb", "cccc"]], edits)
    assert len(columns) == 2


@every_architecture
def test_more_branches_than_fit_side_by_side_run_in_turns(
    tiny_bridge, random_sae, monkeypatch, architecture
):
    model = tiny_bridge(architecture)
    edits = [direction(random_sae, "dense", seed=i) for i in range(5)]
    prompts, texts = ["this prompt"] * 2, [["b", "cd"], ["e", "fg"]]
    expected = branch(model, prompts, edits)
    scores = score_continuations(model, prompts, texts, edits)
    # Four columns behind the last one: 1 + 2 texts' first tokens + 1 second one, twice two fit.
    monkeypatch.setattr(pack, "MAX_COPIED", 12)
    turns = count_calls(monkeypatch, pack, "resume_in_columns")
    close(branch(model, prompts, edits), expected)
    got = score_continuations(model, prompts, texts, edits)
    assert len(turns) > 2
    for one, other in zip(got, scores, strict=True):
        close(one.log_probs, other.log_probs)


def test_below_the_site_every_prompt_runs_once_as_one_row(llama, random_sae):
    ran = []
    handles = [
        block.attn.register_forward_hook(
            lambda _m, _a, out, i=i: ran.append((i, *out[0].shape[:2]))
        )
        for i, block in enumerate(llama.blocks)
    ]
    length = max(len(llama.tokenizer(prompt).input_ids) for prompt in ALIKE)
    try:
        for name, positions in (
            ("resid_post", "all"),
            ("mlp_out", "all"),
            ("resid_post", "answer"),
        ):
            edits = [direction(random_sae, "dense", positions, site(name, 2)) for _ in range(3)]
            branch(llama, ALIKE, edits)
    finally:
        for handle in handles:
            handle.remove()
    narrow, rows, copies = (3, length), (12, length), (3, length + 3)
    assert ran == [
        *((i, *narrow) for i in range(3)),
        (3, *rows),
        *((i, *narrow) for i in range(2)),
        *((i, *rows) for i in (2, 3)),
        *((i, *narrow) for i in range(3)),
        (3, *copies),
    ]


# --- continuations ---


def scored_by_hand(model, prompt, texts, directions, mask_by_hand):
    """Each continuation after its prompt in one uncached forward, edits hooked in by hand."""
    scores = torch.empty(1 + len(directions), len(texts))
    before = model.tokenizer(prompt).input_ids
    for column, text in enumerate(texts):
        added = model.tokenizer(f" {text}", add_special_tokens=False).input_ids
        tokens = torch.tensor([before + added])
        for row, edits in enumerate([[], *directions]):
            handles = []
            for edit in edits if isinstance(edits, list) else [edits]:
                mask = mask_by_hand(
                    edit.positions, tokens[0].tolist(), len(before), model.tokenizer
                )
                places = torch.tensor(mask).view(1, -1, 1).float()
                point = model.hook_dict[edit.hook_name]
                handles.append(
                    point.register_forward_hook(
                        lambda _m, _a, h, edit=edit, places=places: h + places * edit.delta(h)
                    )
                )
            log_probs = model(tokens)[0].log_softmax(-1)
            for handle in handles:
                handle.remove()
            each = log_probs[len(before) - 1 : -1].gather(1, tokens[0, len(before) :, None])
            scores[row, column] = each.sum()
    return scores


@every_architecture
@pytest.mark.parametrize("specs", [EARLY, LATE], ids=["early", "late"])
def test_continuations_are_scored_as_in_one_plain_forward(
    tiny_bridge, random_sae, mask_by_hand, architecture, specs
):
    model = tiny_bridge(architecture)
    shift = ARCHITECTURES.index(architecture)
    directions = [
        direction(
            random_sae,
            MODES[(i + shift) % len(MODES)],
            spec,
            site(SITES[(i + shift) % len(SITES)], 1 + i % 2),
            seed=i,
        )
        for i, spec in enumerate(specs)
    ]
    if len(directions) > 2:
        directions.append(directions[:2])
    got = score_continuations(model, PROMPTS, OPTIONS, directions)
    assert len(got) == len(PROMPTS)
    for prompt, texts, (scores, lengths) in zip(PROMPTS, OPTIONS, got, strict=True):
        close(scores, scored_by_hand(model, prompt, texts, directions, mask_by_hand))
        assert lengths == [len(text) + 1 for text in texts]
        alone = score_continuations(model, [prompt], [texts], directions)
        close(alone[0][0], scores)


@every_architecture
def test_continuations_of_the_base_alone(tiny_bridge, mask_by_hand, architecture):
    model = tiny_bridge(architecture)
    got = score_continuations(model, PROMPTS, OPTIONS, [])
    for prompt, texts, (scores, _) in zip(PROMPTS, OPTIONS, got, strict=True):
        close(scores, scored_by_hand(model, prompt, texts, [], mask_by_hand))


def test_generated_positions_steer_what_is_written_but_not_its_first_token(llama, random_sae):
    options = [["", "yes"]]
    edit = direction(random_sae, "dense", "generated")
    ((scores, lengths),) = score_continuations(llama, ["Say::"], [["y", "yes"]], [edit])
    assert lengths == [2, 4]
    # The joining space is read from the prompt, which is not steered; the letter after it is.
    assert (scores[0] - scores[1]).abs().min() > 1e-3
    ((first, _),) = score_continuations(llama, ["Say:: "], [["y", "z"]], [edit])
    close(first[0], first[1])
    with pytest.raises(InputError, match="option '' adds no token"):
        score_continuations(llama, ["Say:: "], options, [edit])


# --- any of it at random ---


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_random_branches_are_hooked_forwards(tiny_bridge, random_sae, data):
    model = tiny_bridge(data.draw(st.sampled_from(ARCHITECTURES)))

    def drawn(seed):
        return direction(
            random_sae,
            data.draw(st.sampled_from(MODES)),
            data.draw(st.sampled_from([*EARLY, *LATE])),
            site(data.draw(st.sampled_from(SITES)), data.draw(st.integers(0, N_LAYERS - 1))),
            seed,
        )

    k = data.draw(st.integers(1, 4))
    chosen = [[drawn(10 * i + j) for j in range(data.draw(st.integers(1, 2)))] for i in range(k)]
    tails = data.draw(st.lists(st.text("ab c", max_size=4), min_size=1, max_size=3))
    heads = data.draw(st.lists(st.integers(0, 40), min_size=len(tails), max_size=len(tails)))
    prompts = ["q" * n + f"::{tail}" for n, tail in zip(heads, tails, strict=True)]
    got = branch(model, prompts, chosen)
    assert got.shape[:2] == (len(prompts), k + 1)
    close(got, branch(model, prompts, chosen, reference=True))


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_random_continuations_are_the_same_batched_alone_or_captured(tiny_bridge, random_sae, data):
    model = tiny_bridge(data.draw(st.sampled_from(ARCHITECTURES)))
    specs = data.draw(
        st.sampled_from([("every",), ("all",), ("last(3)", "answer"), ("answer", "generated")])
    )
    low = data.draw(st.integers(0, N_LAYERS - 1))
    edits = [
        direction(
            random_sae,
            data.draw(st.sampled_from(MODES)),
            data.draw(st.sampled_from(specs)),
            site("resid_post", data.draw(st.integers(low, N_LAYERS - 1))),
            seed,
        )
        for seed in range(data.draw(st.integers(1, 3)))
    ]
    lengths = data.draw(st.lists(st.integers(3, 20), min_size=1, max_size=3))
    prompts = ["q" * n for n in lengths]
    texts = [
        data.draw(st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=3))
        for _ in prompts
    ]
    together = score_continuations(model, prompts, texts, edits)
    captured = capture_prompts(
        model, prompts, site("resid_post", low), positions=specs[0], continuations=texts
    )
    # Twice, because what was captured must outlast being used.
    for again in (captured.score_continuations(edits), captured.score_continuations(edits)):
        for one, other in zip(together, again, strict=True):
            close(one.log_probs, other.log_probs)
            assert one.n_tokens == other.n_tokens
    for prompt, own, scores in zip(prompts, texts, together, strict=True):
        close(score_continuations(model, [prompt], [own], edits)[0].log_probs, scores.log_probs)
    reference = branch(model, prompts, edits, reference=True)
    close(captured.branch(edits), reference)


# --- captured prompts ---


@every_architecture
@pytest.mark.parametrize("positions", ["all", "answer"])
def test_captured_prompts_serve_any_direction_above_their_site(
    tiny_bridge, random_sae, architecture, positions
):
    model = tiny_bridge(architecture)
    captured = capture_prompts(model, PROMPTS, site("resid_post", 1), positions=positions)
    for edits in (
        [direction(random_sae, "dense", positions)],
        [direction(random_sae, "clamp", "answer", site("resid_post", 3), seed=2)],
        [
            [
                direction(random_sae, "add", positions, site("mlp_out", 2), seed=1),
                direction(random_sae, "scale", "generated", site("resid_pre", 2), seed=4),
            ],
            direction(random_sae, "ablate", positions, seed=6),
        ],
    ):
        close(captured.branch(edits), branch(model, PROMPTS, edits, reference=True))
    close(captured.branch([]), next_token_log_probs(model, PROMPTS, []))


def test_below_the_captured_site_nothing_runs_again(llama, random_sae):
    captured = capture_prompts(llama, PROMPTS, site("resid_post", 1), continuations=OPTIONS)
    ran = []
    handles = [
        block.attn.register_forward_hook(lambda _m, _a, _o, i=i: ran.append(i))
        for i, block in enumerate(llama.blocks)
    ]
    try:
        captured.branch([direction(random_sae, "dense")])
        captured.score_continuations([direction(random_sae, "dense")])
    finally:
        for handle in handles:
            handle.remove()
    assert set(ran) == {2, 3}


def test_captured_prompts_refuse_what_has_already_run(llama, random_sae):
    captured = capture_prompts(llama, PROMPTS, site("resid_post", 1))
    with pytest.raises(InputError, match="captured up to block 1, but a direction edits an earl"):
        captured.branch([direction(random_sae, "dense", hook_name=site("resid_post", 0))])
    with pytest.raises(InputError, match="captured for later positions than 'all'"):
        captured.branch([direction(random_sae, "dense", "all")])
    with pytest.raises(InputError, match="captured without continuations"):
        captured.score_continuations([direction(random_sae, "dense")])
    with pytest.raises(InputError, match="no site"):
        capture_prompts(llama, PROMPTS, site("resid_post", 9))
    with pytest.raises(InputError, match="unknown positions"):
        capture_prompts(llama, PROMPTS, site("resid_post", 1), positions="nowhere")


# --- bad input ---


@pytest.mark.parametrize(
    ("prompts", "match"),
    [
        ([], "a list of at least one prompt"),
        ("a bare string", "a list of at least one prompt"),
        (["fine", ""], "a prompt is empty"),
        (["fine", " \n"], "a prompt is empty"),
        (["x" * 256], r"prompt 0 has 257 tokens, but the model's context holds 256"),
        (["fine", "x" * 300], r"prompt 1 has 301 tokens"),
    ],
)
def test_prompts_that_cannot_be_run_are_refused(llama, random_sae, prompts, match):
    edits = [direction(random_sae, "dense")]
    with pytest.raises(InputError, match=match):
        branch(llama, prompts, edits)
    with pytest.raises(InputError, match=match):
        score_continuations(llama, prompts, [["a"]] * len(prompts), edits)


def test_the_longest_prompt_that_fits_is_run(llama, random_sae):
    assert branch(llama, ["x" * 255], [direction(random_sae, "dense")]).isfinite().all()


def test_continuations_must_fit_after_their_prompt(llama):
    prompts, texts = ["fine", "x" * 250], [["yes"], ["no", "certainly"]]
    with pytest.raises(InputError, match="prompt 1 has 251 tokens and needs 10 more"):
        score_continuations(llama, prompts, texts, [])


@pytest.mark.parametrize("prompts", [None, 5, {"a": 1}, "text", [None], ["fine", 3], [b"fine"]])
def test_prompts_that_are_no_texts_are_refused(llama, prompts):
    with pytest.raises(InputError, match=r"give a list of at least one prompt|must be text"):
        score_continuations(llama, prompts, [["a"]], [])


@pytest.mark.parametrize("continuations", [["Yes", "No"], [["Yes"], [None]], [["Yes"], [3]]])
def test_a_text_is_not_read_as_the_list_of_its_letters(llama, continuations):
    with pytest.raises(InputError, match="give each prompt a list of texts"):
        score_continuations(llama, ["one", "two"], continuations, [])


@pytest.mark.parametrize("continuations", [[], [["a"]], [["a"], []], [["a"], ["b"], ["c"]]])
def test_every_prompt_needs_continuations(llama, continuations):
    with pytest.raises(InputError, match="every prompt needs at least one option"):
        score_continuations(llama, ["one", "two"], continuations, [])


def test_branches_that_cannot_be_run_are_refused(llama, random_sae):
    good = direction(random_sae, "dense")
    for bad, match in [
        ([], "no directions: give at least one"),
        ([good, []], "a branch has no directions"),
        ([direction(random_sae, "dense", hook_name=site("resid_post", 4))], r"0\.\.3"),
        ([[good, direction(random_sae, "add", hook_name=site("resid_pre", 9))]], "no site"),
        ([Direction("w", good.hook_name, AddVector(torch.ones(16)))], "'w' has width 16"),
        (
            [Direction("m", good.hook_name, AddVector(torch.ones(32)), lineage={"model": "x"})],
            "made",
        ),
        ([direction(random_sae, "dense", 'after("nowhere")')], "'nowhere' does not occur"),
    ]:
        with pytest.raises(InputError, match=match):
            branch(llama, ["a::b"], bad)


# --- leaving the model as it was ---


class Broken(Direction):
    def delta(self, h):
        raise RuntimeError("delta broke")


@every_architecture
@pytest.mark.parametrize("name", ["resid_post", "mlp_out"])
@pytest.mark.parametrize("prompts", [SHORT, PROMPTS], ids=["short", "long"])
def test_after_a_failure_the_model_is_bit_for_bit_as_before(
    tiny_bridge, hook_count, random_sae, architecture, name, prompts
):
    model = tiny_bridge(architecture)
    tokens = torch.tensor([model.tokenizer(PROMPTS[0]).input_ids])
    before, n_hooks = model(tokens), hook_count(model)
    good = direction(random_sae, "dense", hook_name=site(name, 1))
    broken = Broken("broken", site(name, 1), AddVector(torch.ones(D_MODEL)))
    for attempt in (
        lambda: branch(model, prompts, [good, broken]),
        lambda: branch(model, prompts, [good, broken], reference=True),
        lambda: score_continuations(model, prompts, [["yes"]] * len(prompts), [good, broken]),
    ):
        with pytest.raises(RuntimeError, match="delta broke"):
            attempt()
        assert hook_count(model) == n_hooks
    branch(model, prompts, [good])
    score_continuations(model, prompts, [["yes"]] * len(prompts), [good])
    assert hook_count(model) == n_hooks
    assert torch.equal(model(tokens), before)


class Overflowing(Direction):
    def delta(self, h):
        return torch.full_like(h, torch.nan)


@every_architecture
def test_a_branch_that_overflows_leaves_the_others_alone(tiny_bridge, random_sae, architecture):
    model, prompts = tiny_bridge(architecture), ["a prompt"]
    good = direction(random_sae, "dense")
    overflowing = Overflowing("over", good.hook_name, AddVector(torch.ones(D_MODEL)))
    with pytest.warns(UserWarning, match="prompt 0: 'over' is not a number from block 1 on"):
        got = branch(model, prompts, [good, overflowing])
    close(got[:, :2], branch(model, prompts, [good]))
    assert got[:, 2].isnan().all()


def test_a_prompt_that_breaks_is_named_and_the_others_are_finished(llama):
    vast = AddVector(torch.full((D_MODEL,), 2e38))
    edits = [Direction("vast", site("resid_post", 2), vast, "generated") for _ in range(2)]
    prompts, options = ["a prompt", "another one"], [["no"], ["y", "n", "yes"]]
    said = "prompt 1: 'vast' is not a number from block 2 on"
    with pytest.warns(UserWarning, match=said):
        found = score_continuations(llama, prompts, options, [edits])
    right = score_continuations(llama, prompts, options, [])
    for one, base in zip(found, right, strict=True):
        close(one.log_probs[:1], base.log_probs)
        assert one.log_probs[1].isnan().all()
    captured = capture_prompts(llama, prompts, edits[0].hook_name, continuations=options)
    with pytest.warns(UserWarning, match=said):
        again = captured.score_continuations([edits])
    assert again[1].log_probs.isnan().equal(found[1].log_probs.isnan())


def test_branching_inside_apply_is_refused(tiny_bridge):
    model = tiny_bridge("llama")
    direction = Direction("p", "blocks.1.hook_resid_post", AddVector(torch.ones(D_MODEL)))
    with direction.apply(model), pytest.raises(InputError, match="steered by `apply` already"):
        branch(model, ["Hello there"], [direction])
    assert branch(model, ["Hello there"], [direction]).shape[:2] == (1, 2)
