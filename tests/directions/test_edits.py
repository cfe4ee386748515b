import numpy as np
import pytest
import torch
from sae_lens import SAE
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.jumprelu_sae import JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
from sae_lens.saes.temporal_sae import TemporalSAE, TemporalSAEConfig
from tiny import D_MODEL

from saepd.common.errors import InputError
from saepd.directions.edits import (
    AddVector,
    EditLatents,
    Reconstruct,
    decoder_rows,
    narrow,
    runtime_scale,
)

PER_LATENT = ("standard", "gated", "jumprelu")
TOGETHER = ("topk", "abstopk", "matching_pursuit")
NORMALISATIONS = ("none", "layer_norm", "constant_norm_rescale")
EDITS = ("add", "scale", "clamp", "ablate")
LATENTS = torch.tensor([30, 2, 7, 41])
VALUES = torch.tensor([1.5, -0.7, 2.0, 0.4])

every_edit = pytest.mark.parametrize("mode", EDITS)
every_normalisation = pytest.mark.parametrize("normalize_activations", NORMALISATIONS)


def activations(*shape, seed=1):
    return torch.randn(*shape, D_MODEL, generator=torch.Generator().manual_seed(seed)) * 2 + 0.3


def edit_of(sae, mode, latents=LATENTS, values=VALUES):
    return EditLatents(sae, latents, None if mode == "ablate" else values, mode)


def edited(f, latents, values, mode):
    """The definition of every mode, one latent after the other."""
    f = f.clone()
    for latent, value in zip(latents.tolist(), values.tolist(), strict=True):
        if mode == "add":
            f[..., latent] += value
        elif mode == "scale":
            f[..., latent] *= value
        elif mode == "clamp":
            f[..., latent] = value
        else:
            f[..., latent] = 0
    return f


def the_long_way(sae, h, latents, values, mode):
    """h + decode(edit(encode(h))) - decode(encode(h)), by the SAE's own methods."""
    f = sae.encode(h)
    plain = sae.decode(f)
    # A decoder forgets the norms that the encoder noted once it has used them.
    steered = sae.decode(edited(sae.encode(h), latents, values, mode))
    return h + steered - plain


def check_against_the_long_way(sae, mode, latents=LATENTS, values=VALUES):
    h = activations(3, 5)
    fires = sae.encode(h)[..., latents] != 0
    # Otherwise scaling and ablating would be no edit at all.
    assert fires.any()
    assert not fires.all()
    expected = the_long_way(sae, h, latents, values, mode)
    delta = edit_of(sae, mode, latents, values).delta(h)
    assert delta.abs().max() > 0.01
    torch.testing.assert_close(h + delta, expected, atol=1e-5, rtol=1e-5)


@every_edit
@every_normalisation
@pytest.mark.parametrize("architecture", [*PER_LATENT, *TOGETHER])
def test_delta_is_the_whole_computation(random_sae, architecture, normalize_activations, mode):
    sae = random_sae(architecture, normalize_activations=normalize_activations)
    check_against_the_long_way(sae, mode)


@every_edit
@pytest.mark.parametrize("architecture", [*PER_LATENT, *TOGETHER])
def test_delta_where_the_decoder_bias_is_not_taken_off_the_input(random_sae, architecture, mode):
    check_against_the_long_way(random_sae(architecture, apply_b_dec_to_input=False), mode)


@every_edit
@every_normalisation
@pytest.mark.parametrize("architecture", ["topk", "abstopk"])
def test_delta_where_activations_are_in_units_of_the_decoder_norm(
    random_sae, architecture, normalize_activations, mode
):
    sae = random_sae(
        architecture,
        rescale_acts_by_decoder_norm=True,
        normalize_activations=normalize_activations,
    )
    norms = sae.W_dec.norm(dim=-1)
    assert norms.min() < 0.9 * norms.max()
    assert (norms - 1).abs().min() > 0.05
    check_against_the_long_way(sae, mode)


@every_edit
@pytest.mark.parametrize("rescale", [False, True])
def test_delta_of_a_batchtopk_sae_as_it_is_saved_and_loaded(tmp_path, mode, rescale):
    torch.manual_seed(3)
    config = BatchTopKTrainingSAEConfig(
        d_in=D_MODEL, d_sae=48, k=12, topk_threshold_lr=1.0, rescale_acts_by_decoder_norm=rescale
    )
    training = BatchTopKTrainingSAE(config)
    with torch.no_grad():
        for weight in training.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape))
    training.update_topk_threshold(training.encode(activations(3, 5)))
    training.save_inference_model(tmp_path)
    sae = SAE.load_from_disk(tmp_path)
    assert sae.cfg.architecture() == "jumprelu"
    assert sae.threshold.min() > 0
    check_against_the_long_way(sae, mode)


@pytest.mark.parametrize("architecture", [*PER_LATENT, *TOGETHER])
@pytest.mark.parametrize("normalize_activations", ["none", "layer_norm"])
def test_reconstruct_leaves_what_the_sae_makes_of_it(
    random_sae, architecture, normalize_activations
):
    sae = random_sae(architecture, normalize_activations=normalize_activations)
    h = activations(2, 3)
    delta = Reconstruct(sae).delta(h)
    torch.testing.assert_close(h + delta, sae.decode(sae.encode(h)), atol=1e-5, rtol=1e-5)


@every_edit
@pytest.mark.parametrize("architecture", ["standard", "topk"])
def test_leading_dimensions_do_not_matter(random_sae, architecture, mode):
    edit = edit_of(random_sae(architecture), mode)
    h = activations(2, 3)
    alone = torch.stack([edit.delta(row) for row in h.flatten(0, 1)])
    torch.testing.assert_close(edit.delta(h).flatten(0, 1), alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("mode", [*EDITS, "reconstruct"])
@pytest.mark.parametrize("architecture", ["standard", "topk"])
@pytest.mark.parametrize("sae_dtype", [torch.float32, torch.bfloat16])
def test_half_precision_goes_in_and_comes_out(random_sae, architecture, mode, sae_dtype):
    sae = random_sae(architecture).to(dtype=sae_dtype)
    edit = Reconstruct(sae) if mode == "reconstruct" else edit_of(sae, mode)
    h = activations(2, 3)
    delta = edit.delta(h.bfloat16())
    assert delta.dtype == torch.bfloat16
    # Bfloat16 keeps 8 bits; a latent may be over the threshold in one precision only.
    close = (delta.float() - edit.delta(h.bfloat16().float())).abs() < 0.05
    assert close.all()


@every_edit
def test_the_activation_is_left_as_it_was(random_sae, mode):
    h = activations(2, 3)
    before = h.clone()
    edit_of(random_sae(), mode).delta(h)
    assert torch.equal(h, before)


# --- the parts ---


@pytest.mark.parametrize("architecture", PER_LATENT)
@every_normalisation
def test_a_narrow_sae_is_columns_of_the_full_one(random_sae, architecture, normalize_activations):
    sae = random_sae(architecture, normalize_activations=normalize_activations)
    small = narrow(sae, LATENTS)
    h = activations(4, 6)
    assert small.cfg.d_sae == 4
    assert sae.cfg.d_sae == 48
    full = sae.encode(h)[..., LATENTS]
    assert full.count_nonzero() > 0
    torch.testing.assert_close(small.encode(h), full, atol=1e-5, rtol=1e-5)
    assert torch.equal(small.W_dec, sae.W_dec[LATENTS])
    assert torch.equal(small.b_dec, sae.b_dec)


@pytest.mark.parametrize("architecture", PER_LATENT)
@pytest.mark.parametrize("n", [3, D_MODEL])
def test_a_narrow_sae_where_latents_and_inputs_are_as_many(random_sae, architecture, n):
    sae = random_sae(architecture, d_sae=D_MODEL)
    order = torch.randperm(D_MODEL, generator=torch.Generator().manual_seed(5))[:n]
    h = activations(4, 6)
    full = sae.encode(h)[..., order]
    torch.testing.assert_close(narrow(sae, order).encode(h), full, atol=1e-5, rtol=1e-5)
    for mode in EDITS:
        check_against_the_long_way(sae, mode, order, torch.linspace(-1, 2, n))


def test_decoder_rows_are_what_one_unit_of_a_latent_decodes_to(random_sae):
    for settings in ({}, {"rescale_acts_by_decoder_norm": True}):
        sae = random_sae("topk", **settings)
        unit = torch.zeros(4, 48).scatter_(1, LATENTS.unsqueeze(1), 1.0)
        expected = sae.decode(unit) - sae.decode(torch.zeros(4, 48))
        torch.testing.assert_close(decoder_rows(sae, LATENTS), expected, atol=1e-6, rtol=1e-5)


@every_normalisation
def test_runtime_scale_is_the_factor_between_decoder_and_output(random_sae, normalize_activations):
    sae = random_sae(normalize_activations=normalize_activations)
    h = activations(5)
    f = sae.encode(h)
    more = sae.decode(f + 1)
    sae.encode(h)
    step = more - sae.decode(f)
    expected = sae.W_dec.sum(0) * runtime_scale(sae, h)
    torch.testing.assert_close(step, expected.expand_as(step), atol=1e-4, rtol=1e-4)


# --- refusals ---


def refused(sae, match):
    for make in (lambda: EditLatents(sae, LATENTS, VALUES), lambda: Reconstruct(sae)):
        with pytest.raises(InputError, match=match):
            make()


@pytest.mark.parametrize("architecture", ["transcoder", "skip_transcoder", "jumprelu_transcoder"])
def test_a_transcoder_that_does_not_say_where_it_writes_is_refused(random_sae, architecture):
    sae = random_sae(architecture, d_out=D_MODEL, apply_b_dec_to_input=False)
    refused(sae, "cannot steer: it does not say where it writes")


def test_a_temporal_sae_is_refused():
    sae = TemporalSAE(TemporalSAEConfig(d_in=D_MODEL, d_sae=48, n_heads=4, bottleneck_factor=1))
    refused(sae, "cannot steer: a temporal SAE reads several positions at once")


def test_an_sae_in_training_is_refused():
    sae = JumpReLUTrainingSAE(JumpReLUTrainingSAEConfig(d_in=D_MODEL, d_sae=48))
    refused(sae, "save it, and load the inference SAE")


def test_an_sae_of_attention_heads_is_refused(random_sae):
    sae = random_sae(hook_name="blocks.1.attn.hook_z", reshape_activations="hook_z")
    refused(sae, "attention heads")


def test_something_that_is_no_sae_is_refused():
    refused(torch.ones(3), "an SAE is needed, as load_sae returns it")


NAN = float("nan")


def test_numbers_beyond_single_precision_are_not_finite_there():
    with pytest.raises(InputError, match="must be finite in float32"):
        AddVector(np.array([1.0, 1e300]))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"mode": "multiply"}, "unknown mode 'multiply': use one of add, scale"),
        ({"mode": "reconstruct"}, "unknown mode 'reconstruct'"),
        ({"values": None}, "mode 'add' needs values"),
        ({"mode": "ablate"}, "mode 'ablate' sets latents to zero: leave out the values"),
        ({"values": VALUES[:2]}, "4 latents but 2 values"),
        ({"values": VALUES[None]}, r"list of numbers, not of shape \(1, 4\)"),
        ({"values": ["a", "b", "c", "d"]}, "the values of latents must be a list of numbers"),
        ({"values": [1.0, NAN, 0.0, 2.0]}, "must be finite"),
        ({"latents": None}, "latents must be a list of numbers"),
        ({"latents": 3}, r"at least one id, not of shape \(\)"),
        ({"latents": []}, r"at least one id, not of shape \(0,\)"),
        ({"latents": [0.5, 1.5, 2.5, 3.5]}, "whole numbers, not torch.float32"),
        ({"latents": [True, False, True, False]}, "whole numbers"),
        ({"latents": [3, 5, 3, 7]}, "a latent is named twice"),
        ({"latents": [3, 5, 48, 7]}, r"must be in 0\.\.47"),
        ({"latents": [3, 5, -1, 7]}, r"must be in 0\.\.47"),
    ],
)
def test_an_edit_that_makes_no_sense_is_refused(random_sae, changes, match):
    settings = {"sae": random_sae(), "latents": LATENTS, "values": VALUES}
    EditLatents(**settings)
    with pytest.raises(InputError, match=match):
        EditLatents(**(settings | changes))


@pytest.mark.parametrize(
    ("vector", "match"),
    [
        ([1.0, NAN], "the vector to add must be finite"),
        ([1.0, float("inf")], "must be finite"),
        ([], "list of numbers"),
        (3.0, "list of numbers"),
        ("text", "list of numbers"),
        ([[1.0]], r"not of shape \(1, 1\)"),
        ([1j], "list of numbers"),
    ],
)
def test_a_vector_that_is_none_is_refused(vector, match):
    with pytest.raises(InputError, match=match):
        AddVector(vector)


def test_lists_and_arrays_are_taken(random_sae):
    h = activations(3)
    expected = EditLatents(random_sae(), LATENTS, VALUES).delta(h)
    for kind in (list, np.array):
        edit = EditLatents(random_sae(), kind(LATENTS.tolist()), kind(VALUES.tolist()))
        assert torch.equal(edit.delta(h), expected)
        assert torch.equal(AddVector(kind([1.0, 2.0])).vector, torch.tensor([1.0, 2.0]))
