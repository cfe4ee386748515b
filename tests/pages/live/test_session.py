import json
from dataclasses import replace

import pytest
import torch
from tiny import D_MODEL, SITE, save_tiny_sae

from saepd.branches.writing.config import SamplingConfig
from saepd.branches.writing.generate import generate_batch
from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, EditLatents
from saepd.directions.gate import Gate
from saepd.directions.saving import load_from_disk
from saepd.features.index.build import build_index
from saepd.features.index.config import IndexConfig
from saepd.features.index.reading import OWN, load_index
from saepd.feedback.schema import Item
from saepd.merge.config import MergeConfig
from saepd.merge.operators import merge_branches
from saepd.pages.live.request import read_request
from saepd.pages.live.session import LiveSession
from saepd.readout.options import read_options
from saepd.saes.load import load_sae

ASKED = {
    "prompt": "So?",
    "options": ["Yes", "No", "Maybe"],
    "strengths": {"left": 1.0, "right": 1.0},
    "operator": "mixture",
    "max_new_tokens": 8,
}


@pytest.fixture
def session(llama, random_sae):
    sae = random_sae()
    directions = [
        Direction("left", SITE, EditLatents(sae, [3, 7, 9], [2.0, -1.0, 0.5]), coefficient=2.0),
        Direction("right", SITE, AddVector(torch.ones(32) * 0.3)),
    ]
    people = {"left": [0.5, 0.5], "elsewhere": [1.0, 0.0]}
    items = [Item(id="q", prompt="So?", options=("Yes", "No"), distributions=people)]
    return LiveSession(llama, directions, items)


def test_the_page_is_told_what_there_is(session):
    state = session.state()
    assert state["names"] == ["left", "right"]
    assert "mixture" in state["operators"]
    assert "weighted" not in state["operators"]
    assert state["items"][0]["people"] == {"left": [0.5, 0.5]}
    json.dumps(state, allow_nan=False)


def test_bars_are_what_reading_gives_and_a_slider_runs_no_prefix(session, llama):
    for strengths in ((1.0, 1.0), (3.0, -0.5), (0.0, 1.0)):
        asked = {**ASKED, "strengths": dict(zip(session.names, strengths, strict=True))}
        found = session.options(asked)
        scaled = [s * d for s, d in zip(strengths, session.directions, strict=True)]
        item = Item(id="q", prompt="So?", options=tuple(ASKED["options"]))
        [scores] = read_options(llama, item, scaled)
        expected = scores.log_probs()
        shares = torch.tensor(list(found["branches"].values()))
        torch.testing.assert_close(shares, expected.exp(), atol=1e-4, rtol=1e-3)
        merged = merge_branches(expected, MergeConfig("mixture")).exp()
        torch.testing.assert_close(torch.tensor(found["merged"]), merged, atol=1e-4, rtol=1e-3)
    assert session.n_captured == 1
    session.options({**ASKED, "prompt": "Another?"})
    assert session.n_captured == 2


def test_a_slider_runs_no_prefix_of_gated_directions_at_several_places(llama, random_sae):
    gate = Gate(SITE, 0.2 * torch.ones(D_MODEL), bias=0.5)
    above = Direction("a", "blocks.2.hook_resid_post", AddVector(torch.ones(D_MODEL)), "every")
    gated = Direction("a", SITE, AddVector(torch.ones(D_MODEL)), also=(above,), gate=gate)
    other = Direction("b", SITE, EditLatents(random_sae(), [3], [2.0], "clamp"), "prompt")
    session = LiveSession(llama, [gated, other])
    item = Item(id="q", prompt="So?", options=tuple(ASKED["options"]))
    for strengths in ((1.0, 1.0), (-2.0, 0.5)):
        asked = {**ASKED, "strengths": dict(zip(session.names, strengths, strict=True))}
        scaled = [s * d for s, d in zip(strengths, session.directions, strict=True)]
        [scores] = read_options(llama, item, scaled)
        shares = torch.tensor(list(session.options(asked)["branches"].values()))
        torch.testing.assert_close(shares, scores.log_probs().exp(), atol=1e-4, rtol=1e-3)
    assert session.n_captured == 1


def test_another_merge_needs_no_model(session, monkeypatch):
    first = session.options(ASKED)
    monkeypatch.setattr(LiveSession, "_scored", None)
    second = session.options({**ASKED, "operator": "cad", "alpha": 2.0})
    assert second["branches"] == first["branches"]
    assert second["merged"] != first["merged"]


def test_directions_of_several_sites_are_read_all_the_same(llama, session):
    above = Direction("above", "blocks.2.hook_resid_post", AddVector(torch.ones(32)))
    both = LiveSession(llama, [session.directions[0], above])
    asked = {**ASKED, "strengths": {"left": 1.0, "above": 1.0}}
    found = both.options(asked)
    item = Item(id="q", prompt="So?", options=tuple(ASKED["options"]))
    [scores] = read_options(llama, item, both.directions)
    shares = torch.tensor(list(found["branches"].values()))
    torch.testing.assert_close(shares, scores.log_probs().exp(), atol=1e-5, rtol=1e-4)


def test_texts_grow_and_tokens_name_their_steps(session, llama):
    lines = list(session.write(ASKED))
    json.dumps(lines)
    [merged] = generate_batch(
        llama,
        ["So?"],
        session.directions,
        MergeConfig("mixture"),
        SamplingConfig(max_new_tokens=8),
        trace=True,
    )
    own = [line for line in lines if line["writer"] == "merged"]
    assert own[-1]["text"] == merged.text
    assert "".join(text for text, _ in own[-1]["pieces"]) == merged.text
    steps = [line["step"] for line in own if "step" in line]
    assert [step["token"] for step in steps] == list(merged.tokens)
    assert all(step["moved_by"] in (None, "left", "right") for step in steps)
    assert {line["writer"] for line in lines} == {"base", "left", "right", "merged"}


def test_latents_that_speak_for_a_token_come_first(session, llama):
    found = session.moved({"branch": "left", "token": 40, "base_token": 50})["latents"]
    assert [one["effect"] for one in found] == sorted((o["effect"] for o in found), reverse=True)
    edit = session.directions[0].edit
    gain = llama.ln_final.weight.float()
    difference = (llama.W_U[:, 40] - llama.W_U[:, 50]).float()
    for one in found:
        row = edit.sae.W_dec[one["latent"]] * gain
        assert one["effect"] == pytest.approx(
            2.0 * one["value"] * float(row @ difference), rel=1e-3
        )
    assert session.moved({"branch": "right", "token": 40, "base_token": 50}) == {"latents": []}
    for wrong in ({"branch": "base"}, {"branch": "left", "token": 10**9, "base_token": 1}, {}):
        with pytest.raises(InputError, match="a perspective and two tokens"):
            session.moved({"token": 1, "base_token": 2, **wrong})


def test_latents_of_all_sites_of_a_direction_speak_for_a_token(llama, random_sae):
    sites = (SITE, "blocks.2.hook_resid_post")
    parts = [
        Direction("d", site, EditLatents(random_sae(hook_name=site, seed=i), [3, 7], [2.0, -1.0]))
        for i, site in enumerate(sites)
    ]
    session = LiveSession(llama, [replace(parts[0], also=(parts[1],))])
    found = session.moved({"branch": "d", "token": 40, "base_token": 50})["latents"]
    assert {(one["site"], one["latent"]) for one in found} == {
        (s, i) for s in sites for i in (3, 7)
    }
    assert [one["effect"] for one in found] == sorted((o["effect"] for o in found), reverse=True)
    asked = {**ASKED, "strengths": {"d": 2.0}}
    [scores] = read_options(
        llama, Item(id="q", prompt="So?", options=tuple(ASKED["options"])), [[2 * p for p in parts]]
    )
    shares = torch.tensor(list(session.options(asked)["branches"].values()))
    torch.testing.assert_close(shares, scores.log_probs().exp(), atol=1e-5, rtol=1e-4)


def test_a_latent_has_the_page_of_its_saes_own_index(session, llama, tmp_path):
    found = session.latent({"branch": "left", "site": SITE, "latent": 7})
    assert (found["latent"], found["contexts"]) == (7, [])
    assert found["about"].startswith("promotes ")
    folder = save_tiny_sae(tmp_path / "sae", model_name=str(llama.cfg.model_name))
    sae = load_sae(folder, model=llama, any_model=True)
    texts = [f"the {word} is here and the {word} is there" for word in ("cat", "dog")] * 8
    build_index(llama, sae, texts, folder / OWN, IndexConfig())
    indexed = LiveSession(llama, [Direction("left", SITE, EditLatents(sae, [7], [2.0]))])
    found = indexed.latent({"branch": "left", "site": SITE, "latent": 7})
    known = load_index(folder / OWN).page(7)
    assert found["about"] == known.label
    assert found["raises"] == known.raises
    assert [c["tokens"] for c in found["contexts"]] == [c.tokens for c in known.contexts]
    json.dumps(found, allow_nan=False)
    for wrong, said in (
        ({"branch": "right", "site": SITE, "latent": 1}, "made of latents"),
        ({"branch": "left", "site": "blocks.2.hook_resid_post", "latent": 1}, "a site of it"),
        ({"branch": "left", "site": SITE, "latent": 48}, r"latents 0\.\.47"),
        ({"branch": "left", "site": SITE, "latent": "7"}, r"latents 0\.\.47"),
        ({}, "made of latents"),
    ):
        with pytest.raises(InputError, match=said):
            session.latent(wrong)


def test_what_was_found_is_saved_at_its_strengths(llama, random_sae, tmp_path):
    sae = random_sae()
    left = Direction("left", SITE, EditLatents(sae, [3], [2.0]), coefficient=2.0)
    session = LiveSession(llama, [left])
    asked = {"strengths": {"left": 1.5}, "folder": str(tmp_path / "new")}
    assert session.save(asked) == {"saved": str(tmp_path / "new")}
    [loaded] = load_from_disk(tmp_path / "new", llama, sae)
    assert loaded.coefficient == 3.0
    with pytest.raises(InputError, match="is there already"):
        session.save(asked)
    with pytest.raises(InputError, match="no folder to save in"):
        session.save({**asked, "folder": " "})


def test_the_python_is_python(session):
    hostile = {**ASKED, "prompt": "'); import os #\n\"", "options": ["'", '"']}
    for asked in (ASKED, {**ASKED, "options": []}, hostile):
        code = session.code(asked)["python"]
        compile(code, "shown", "exec")
        assert repr(asked["prompt"]) in code


def test_the_python_puts_a_user_s_turn_as_the_page_does(session, capsys):
    """What it writes is what the page wrote: the template is part of the prompt."""
    asked = {**ASKED, "options": [], "style": "chat"}
    *_, last = [one for one in session.write(asked) if one["writer"] == "merged"]
    strip = [
        line for line in session.code(asked)["python"].splitlines() if "saepd.load" not in line
    ]
    held = {"model": session.model, "directions": session.directions}
    exec("\n".join(strip), held)
    assert capsys.readouterr().out == last["text"]
    assert (
        session.model.tokenizer.apply_chat_template(
            [{"role": "user", "content": ASKED["prompt"]}],
            tokenize=False,
            add_generation_prompt=True,
        )
        == held["prompt"]
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": 3}, "the prompt is empty"),
        ({"options": ["Yes"]}, "one option is no choice"),
        ({"options": ["Yes", " "]}, "options must be texts"),
        ({"options": "Yes"}, "options must be texts"),
        ({"options": ["Yes", "Yes"]}, "an option is there twice"),
        ({"strengths": {"left": 1}}, "strengths must name each of left, right"),
        ({"strengths": {"left": 1, "right": "x"}}, "the strength of 'right' is 'x'"),
        ({"strengths": {"left": 1, "right": 1e9}}, "the strength of 'right' is 1000000000.0"),
        ({"operator": "mix"}, "unknown merge operator 'mix'"),
        ({"operator": ["mix"]}, "unknown merge operator"),
        ({"alpha": "x"}, "alpha is 'x'"),
        ({"style": "loud"}, "unknown style 'loud'"),
        ({"max_new_tokens": 10**6}, "the number of tokens is 1000000"),
        ({"temperature": -1}, "the temperature is -1"),
        ({"temperature": float("nan")}, "the temperature is nan"),
        ({"seed": 0.5}, "the seed is 0.5"),
    ],
)
def test_what_cannot_be_asked_is_refused(wrong, said):
    with pytest.raises(InputError, match=said):
        read_request({**ASKED, **wrong}, ["left", "right"])


def test_options_are_needed_for_bars(session):
    with pytest.raises(InputError, match="there are no options to read"):
        session.options({**ASKED, "options": []})
