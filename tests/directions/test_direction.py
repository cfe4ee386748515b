from dataclasses import replace

import pytest
import torch
from directed import LATENTS, VALUES, dense, sparse, vector
from tiny import D_MODEL, SITE

from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector, EditLatents, Reconstruct, decoder_rows
from saepd.directions.gate import Gate


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("base", "'base' is what saepd calls the model without steering"),
        (" merged", "'merged' is what saepd calls the answer of all"),
        ("all", "'all' is what saepd calls the mean"),
        ("", "a perspective needs a name"),
        ("\u200b", "only characters that cannot be seen"),
        ("A\0", "holds the control character"),
        (3, "its perspective must be text"),
    ],
)
def test_a_name_that_feedback_may_not_have_is_refused(name, message):
    with pytest.raises(InputError, match=message):
        Direction(name, SITE, AddVector(vector()))


def test_scaled_replaces_the_coefficient(random_sae):
    sae, h = random_sae(), torch.randn(4, D_MODEL)
    for mode in ("add", "scale", "clamp", "ablate"):
        direction = sparse(sae, mode, coefficient=0.5, positions="prompt", lineage={"x": 1})
        once, thrice = direction.scaled(1.0), direction.scaled(-3.0)
        assert (direction.coefficient, thrice.coefficient) == (0.5, -3.0)
        assert once.delta(h).abs().max() > 0.01
        torch.testing.assert_close(thrice.delta(h), -3 * once.delta(h), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(direction.delta(h), once.delta(h) / 2, atol=1e-5, rtol=1e-5)
        assert (thrice.edit.mode, thrice.positions, thrice.lineage) == (mode, "prompt", {"x": 1})
    pushed = dense().scaled(2.0)
    torch.testing.assert_close(pushed.delta(h), (2 * vector()).expand(4, -1))


def test_constant_is_what_add_writes_everywhere_and_none_elsewhere(random_sae):
    h = torch.randn(4, D_MODEL)
    sae = random_sae()
    added = sparse(sae, coefficient=2.0)
    expected = 2 * (VALUES @ sae.W_dec[LATENTS])
    torch.testing.assert_close(added.constant, expected)
    torch.testing.assert_close(added.delta(h), expected.expand(4, -1))
    torch.testing.assert_close(dense(coefficient=-1.0).constant, -vector())
    assert all(sparse(sae, mode).constant is None for mode in ("scale", "clamp", "ablate"))
    normalised = sparse(random_sae(normalize_activations="layer_norm"))
    assert normalised.constant is None
    assert normalised.delta(h).std(0).max() > 0.01


def test_delta_takes_the_precision_of_the_activation(random_sae):
    h = torch.randn(4, D_MODEL).bfloat16()
    for direction in (dense(), sparse(random_sae()), sparse(random_sae(), "clamp")):
        assert direction.delta(h).dtype == torch.bfloat16


def test_block_is_that_of_the_site():
    assert dense(hook_name="blocks.13.hook_mlp_out").block == 13


NAN = float("nan")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"perspective": 3}, "its perspective must be text, not 3"),
        ({"hook_name": 15}, "direction 'p': its hook_name must be text, not 15"),
        ({"positions": 3}, "its positions must be text"),
        ({"positions": "lasst(2)"}, "unknown positions"),
        ({"coefficient": NAN}, "coefficient is nan: it must be finite"),
        ({"coefficient": float("inf")}, "must be finite"),
        ({"coefficient": "2"}, "the coefficient is 2"),
        (
            {"edit": torch.ones(D_MODEL)},
            "must be AddVector, EditLatents or Reconstruct, not Tensor",
        ),
    ],
)
def test_a_direction_that_makes_no_sense_is_refused(changes, match):
    settings = {"perspective": "p", "hook_name": SITE, "edit": AddVector(vector())}
    Direction(**settings)
    with pytest.raises(InputError, match=match):
        Direction(**(settings | changes))


@pytest.mark.parametrize("kind", ["latents", "reconstruct"])
def test_an_sae_edits_its_own_site_only(random_sae, kind):
    sae = random_sae(hook_name="blocks.1.hook_resid_post")
    edit = Reconstruct(sae) if kind == "reconstruct" else EditLatents(sae, [3], [1.0])
    for same in ("blocks.1.hook_resid_post", "blocks.1.hook_out", "blocks.2.hook_resid_pre"):
        assert Direction("p", same, edit).hook_name == same
    for other in (
        "blocks.0.hook_resid_post",
        "blocks.1.hook_resid_pre",
        "blocks.2.hook_resid_post",
        "blocks.1.hook_mlp_out",
    ):
        with pytest.raises(InputError, match=f"trained at blocks.1.hook_resid_post, .* {other}"):
            Direction("p", other, edit)


def test_a_multiple_has_the_multiple_of_the_coefficient(random_sae):
    for direction in (dense(coefficient=0.5), sparse(random_sae(), "clamp", coefficient=0.5)):
        for made, coefficient in ((2 * direction, 1.0), (direction * 3, 1.5), (-direction, -0.5)):
            assert made.coefficient == coefficient
            assert made.edit is direction.edit
            assert made.positions == direction.positions
    with pytest.raises(TypeError):
        dense() * dense()
    with pytest.raises(InputError, match="must be finite"):
        dense() * float("nan")


def test_what_is_done_at_further_sites_must_be_a_plain_direction_of_the_same_name():
    gate = Gate(SITE, torch.ones(D_MODEL))
    later = dense(hook_name="blocks.2.hook_resid_post")
    assert dense(also=[later]).also == (later,)
    for also, match in [
        ([vector()], "must be a Direction at another site"),
        ([replace(later, perspective="other")], "is called 'other': give it the same name"),
        ([replace(later, also=(later,))], "further sites of its own"),
        ([replace(later, gate=gate)], "has a gate"),
    ]:
        with pytest.raises(InputError, match=match):
            dense(also=also)
    with pytest.raises(InputError, match=r"is behind its own site blocks\.0"):
        dense(also=[dense(hook_name="blocks.0.hook_resid_post")], gate=gate)


def test_a_direction_of_several_sites_shows_all_of_them(random_sae):
    direction = sparse(random_sae(), also=[replace(dense(), perspective="sparse")])
    assert "also AddVector" in repr(direction)
    frame = direction.frame()
    assert frame.latent.notna().sum() == len(LATENTS) and len(frame) == len(LATENTS) + 1
    assert direction._repr_html_().count("positions") == 2
    assert not direction.writes_nothing
    nothing = dense(also=[0 * dense(hook_name="blocks.2.hook_resid_post")], coefficient=0.0)
    assert nothing.writes_nothing
    assert not sparse(random_sae(), "ablate").writes_nothing


def test_directions_of_many_strengths_share_their_edit(random_sae):
    for direction in (dense(), *(sparse(random_sae(), m) for m in ("add", "clamp", "ablate"))):
        many = [direction.scaled(2.0**i) for i in range(15)]
        assert all(one.edit is direction.edit for one in many)
        h = torch.randn(2, D_MODEL)
        for one in many:
            one.delta(h)
    rows = many[0].edit._rows.data_ptr()
    assert all(one.edit._rows.data_ptr() == rows for one in many)


def test_the_constant_vector_is_computed_once(random_sae, monkeypatch):
    direction, h = sparse(random_sae()), torch.randn(2, D_MODEL)
    read = []
    monkeypatch.setattr(
        "saepd.directions.edits.decoder_rows",
        lambda sae, latents: read.append(latents) or decoder_rows(sae, latents),
    )
    for strength in (1.0, 2.0, 3.0):
        for _ in range(3):
            direction.scaled(strength).delta(h)
    assert len(read) == 1


def test_numbers_of_the_caller_may_change_afterwards():
    numbers = vector()
    direction = Direction("p", SITE, AddVector(numbers))
    numbers.zero_()
    assert torch.equal(direction.constant, vector())


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"also": dense()}, "must be a list of Directions"),
        ({"also": 5}, "must be a list of Directions"),
        ({"lineage": None}, "its lineage is None: give a dict"),
    ],
)
def test_settings_of_another_kind_are_refused(settings, match):
    with pytest.raises(InputError, match=match):
        replace(dense(), **settings)


def test_a_direction_is_shown_in_a_line(random_sae):
    for made in (
        dense(),
        sparse(random_sae(), "clamp"),
        Direction("r", SITE, Reconstruct(random_sae())),
    ):
        assert len(repr(made)) < 160
        assert "\n" not in repr(made)
    assert repr(sparse(random_sae(), "clamp", coefficient=2.0)) == (
        f"Direction('sparse', '{SITE}', EditLatents(clamp 3 latents of {SITE}), "
        "positions='answer', coefficient=2)"
    )
