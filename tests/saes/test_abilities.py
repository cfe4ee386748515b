"""Each kind of dictionary that SAELens loads: read and written, read only, or refused."""

import pytest
import torch
from tiny import D_MODEL, SITE

from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import EditLatents
from saepd.directions.sites import check_site
from saepd.features.config import FeatureConfig
from saepd.features.encode import encode_pairs
from saepd.features.evidence import explain
from saepd.features.select import select_features
from saepd.feedback.schema import Feedback
from saepd.fit.config import FitConfig
from saepd.fit.learn import learn_directions
from saepd.fit.recipe import fit_directions
from saepd.models.sites import read_site
from saepd.models.tokens import prompt_ids
from saepd.models.wording import ReadoutConfig
from saepd.saes.abilities import abilities, abilities_of, check_reads, encode, reconstruct
from saepd.saes.fits import PROBE_TEXT, check_config, check_measured, process_alike

ROWS = [
    Feedback(
        id=str(i),
        perspective="AB"[i % 2],
        prompt=f"Question {i // 2}?",
        options=("Yes", "No"),
        answer=("Yes", "No")[(i // 3) % 2],
    )
    for i in range(16)
]
CONFIG = FeatureConfig(k=4, n_bootstrap=8, min_stability=0, max_density=1)

READ_ONLY = [
    ("blocks.2.attn.hook_z", "only through the rest of its block"),
    ("blocks.2.mlp.hook_post", "only through the rest of its block"),
    ("blocks.2.ln2.hook_normalized", "only through the rest of its block"),
    ("blocks.2.hook_resid_mid", "only the block's MLP would see an edit there"),
    ("ln_final.hook_normalized", "outside the blocks"),
    ("hook_embed", "outside the blocks"),
]


def sae_on(random_sae, site):
    width = {"blocks.2.mlp.hook_post": 64}.get(site, D_MODEL)
    heads = {"reshape_activations": "hook_z"} if site.endswith("hook_z") else {}
    return random_sae(hook_name=site, d_in=width, **heads)


@pytest.mark.parametrize(("site", "why"), READ_ONLY)
def test_features_are_read_where_directions_cannot_be_written(llama, random_sae, site, why):
    sae = sae_on(random_sae, site)
    able = abilities(sae)
    assert (able.reads, able.writes) == (True, False)
    assert site in able.why_not or "hook_z" in able.why_not
    assert why in able.why_not
    pairs = encode_pairs(llama, sae, ROWS, CONFIG, ReadoutConfig())
    text = pairs.positive_texts[0]
    tokens = torch.tensor([prompt_ids(llama.tokenizer, text)])
    _, cache = llama.run_with_cache(tokens)
    by_hand = sae.encode(cache[site])[0, -1]
    torch.testing.assert_close(pairs.positive_latents[0], by_hand, atol=1e-5, rtol=1e-4)
    features = select_features(pairs, "A", CONFIG)
    evidence = explain(llama, sae, pairs, features, n=1)[0]
    assert evidence.tokens == []
    assert evidence.to_dict()["output_score"] is None
    for fit in (fit_directions, learn_directions):
        with pytest.raises(InputError, match=r"can be read .* but cannot steer") as refused:
            # Before any work: not even the rows are looked at.
            fit(llama, sae, [], FitConfig(features=CONFIG))
        assert why in str(refused.value)
    with pytest.raises(InputError, match="cannot steer"):
        EditLatents(sae, torch.tensor([1]), torch.ones(1))
    with pytest.raises(InputError, match=why):
        check_site(llama, site)


@pytest.mark.parametrize(
    "site", [SITE, "blocks.0.hook_resid_pre", "blocks.1.hook_attn_out", "blocks.1.hook_mlp_out"]
)
def test_sites_of_the_residual_stream_can_do_both(llama, random_sae, site):
    sae = random_sae(hook_name=site)
    able = abilities(sae)
    assert (able.reads, able.writes, able.why_not) == (True, True, "")
    fitted = fit_directions(llama, sae, ROWS, FitConfig(features=CONFIG))
    assert all(isinstance(direction, Direction) for direction in fitted.directions)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"architecture": "temporal"}, "several positions at once"),
        ({"metadata": {"hook_name": SITE, "hook_head_index": 3}}, "single attention head"),
        ({"metadata": {"hook_name": "blocks.1.hook_mlp_in"}}, "does not compute blocks.1.hook_mlp"),
        ({"metadata": {"hook_name": "blocks.1.attn.hook_result"}}, "does not compute blocks"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_configuration(config, why):
    config = {"architecture": "standard", "metadata": {"hook_name": SITE}, **config}
    assert not abilities_of(config).reads
    with pytest.raises(InputError, match=f"this SAE cannot be used: .*{why}"):
        check_reads(config)


# --- transcoders ---

IN, OUT = "blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out"


@pytest.fixture
def transcoder(llama):
    """The best linear map from the MLP's input to its output on the probe text."""
    from sae_lens import Transcoder, TranscoderConfig
    from sae_lens.saes.sae import SAEMetadata

    row = prompt_ids(llama.tokenizer, PROBE_TEXT)[:128]
    x, y = read_site(
        llama, [IN, OUT], [row], lambda b: [[b.held[n][b.counted] for n in (IN, OUT)]]
    )[0]
    x, y = x.clone(), y.clone()
    mean = y.mean(0)
    A = torch.linalg.lstsq(x, y - mean).solution
    metadata = SAEMetadata(model_name="model", hook_name=IN, hook_name_out=OUT)
    config = TranscoderConfig(
        d_in=D_MODEL,
        d_out=D_MODEL,
        d_sae=2 * D_MODEL,
        apply_b_dec_to_input=False,
        metadata=metadata,
    )
    sae = Transcoder(config)
    eye = torch.eye(D_MODEL)
    with torch.no_grad():
        for name, value in {
            "W_enc": torch.cat([eye, -eye], 1),
            "W_dec": torch.cat([A, -A]),
            "b_enc": torch.zeros(2 * D_MODEL),
            "b_dec": mean,
        }.items():
            getattr(sae, name).copy_(value)
    return sae.eval().requires_grad_(False), (x @ A + mean, y)


def test_a_transcoder_is_measured_where_it_writes_and_read_where_it_reads(llama, transcoder):
    sae, (made, written) = transcoder
    config = {**sae.cfg.to_dict(), "architecture": "transcoder"}
    check_config(config, llama, any_model=True)
    check_measured(sae, llama)
    expected = 1 - (written - made).square().sum() / (written - written.mean(0)).square().sum()
    assert 0.3 < float(expected) < 0.999
    found = sae.cfg.metadata.probe_explained_variance
    assert found == pytest.approx(float(expected), abs=1e-4)
    able = abilities(sae)
    assert (able.reads, able.writes, able.why_not) == (True, True, "")
    pairs = encode_pairs(llama, sae, ROWS, CONFIG, ReadoutConfig())
    evidence = explain(llama, sae, pairs, select_features(pairs, "A", CONFIG), n=2)
    # What it writes is added to the residual stream, and so can be read as tokens.
    assert [len(e.tokens) for e in evidence] == [10, 10]
    # Residuals, which a dense vector is made of, are those of the site that is written.
    tokens = torch.tensor([prompt_ids(llama.tokenizer, pairs.positive_texts[0])])
    _, cache = llama.run_with_cache(tokens)
    torch.testing.assert_close(
        pairs.positive_latents[0], sae.encode(cache[IN])[0, -1], atol=1e-5, rtol=1e-4
    )
    assert pairs.residuals.shape == (len(ROWS), D_MODEL)
    fitted = fit_directions(llama, sae, ROWS, FitConfig(features=CONFIG))
    assert {d.hook_name for d in fitted.directions} == {OUT}
    learned = learn_directions(llama, sae, ROWS)
    assert {d.hook_name for d in learned.directions} == {OUT}
    assert all(d.gate is None or d.gate.hook_name == IN for d in learned.directions)


def test_a_transcoder_that_does_not_say_where_it_writes_is_refused(llama, transcoder):
    config = {**transcoder[0].cfg.to_dict(), "architecture": "transcoder"}
    config["metadata"] = {**config["metadata"], "hook_name_out": None}
    with pytest.raises(InputError, match="names no site to write"):
        check_config(config, llama, any_model=True)


# --- heads ---


def test_joined_heads_are_encoded_as_saelens_encodes_them(random_sae):
    sae = random_sae(reshape_activations="hook_z", hook_name="blocks.2.attn.hook_z")
    x = torch.randn(2, 5, 4, 8)
    joined = x.flatten(2)
    torch.testing.assert_close(encode(sae, joined), sae.encode(x))
    torch.testing.assert_close(reconstruct(sae, joined), sae(x).flatten(2))
    plain = random_sae()
    torch.testing.assert_close(encode(plain, joined), plain.encode(joined))
    torch.testing.assert_close(reconstruct(plain, joined), plain(joined))


# --- weight processing ---


@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "topk", "gated"])
@pytest.mark.parametrize("subtracts", [True, False])
def test_centred_writing_weights_are_folded_into_the_sae(
    tiny_bridge, random_sae, architecture, subtracts
):
    kwargs = {"apply_b_dec_to_input": subtracts}
    before, after = (random_sae(architecture, **kwargs) for _ in range(2))
    after.cfg.metadata.model_from_pretrained_kwargs = {"center_writing_weights": True}
    process_alike(after, tiny_bridge("gpt2"))
    x = torch.randn(50, D_MODEL) + 3
    centred = x - x.mean(-1, keepdim=True)
    torch.testing.assert_close(after.encode(x), before.encode(centred), atol=1e-5, rtol=1e-4)
    assert (before.encode(x) - before.encode(centred)).abs().max() > 0.1
    assert after.cfg.metadata.centred_for_model


def test_models_without_layer_norm_have_nothing_to_centre(llama, random_sae):
    before, after = random_sae(), random_sae()
    after.cfg.metadata.model_from_pretrained_kwargs = {"center_writing_weights": True}
    process_alike(after, llama)
    assert torch.equal(before.W_enc, after.W_enc)


def test_other_processing_is_said(llama, random_sae, caplog):
    sae = random_sae()
    sae.cfg.metadata.model_from_pretrained_kwargs = {"fold_ln": True, "center_unembed": False}
    process_alike(sae, llama)
    assert "loaded with fold_ln, which saepd does not do" in caplog.text
