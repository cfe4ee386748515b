import pytest
import torch
from tiny import ARCHITECTURES, D_MODEL, save_random, save_tiny_model, tiny_tokenizer

from saepd.features.lens import logit_lens, token_text
from saepd.models.load import load_model

LATENTS = torch.tensor([5, 0, 33])


@pytest.fixture
def uneven(tmp_path):
    """Architecture -> a tiny model whose final norm has a different gain for every dimension."""

    def load(architecture):
        model = load_model(save_tiny_model(architecture, tmp_path / architecture), device="cpu")
        gain = dict(model.original_model.named_parameters())
        name = next(n for n in gain if "norm" in n.split(".")[1] or "ln_f" in n)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            gain[name].copy_(torch.randn(D_MODEL, generator=generator))
        return model

    return load


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logit_lens_is_the_end_of_the_model(uneven, random_sae, architecture):
    model, sae = uneven(architecture), random_sae()
    rows = sae.W_dec[LATENTS]
    # The norm scales a row by a positive number, which does not change the order of its tokens.
    logits = model.unembed(model.ln_final(100 * rows.unsqueeze(0)))[0]
    expected = logits.topk(7, dim=-1).indices
    assert torch.equal(logit_lens(model, sae, LATENTS, 7), expected)
    # The gain matters: without it other tokens come out on top.
    assert not torch.equal((rows @ model.W_U).topk(7, dim=-1).indices, expected)


def test_a_gain_that_is_stored_as_its_distance_from_one_is_known_by_what_the_norm_does(
    tmp_path, random_sae
):
    import transformers

    config = transformers.NemotronConfig(
        vocab_size=len(tiny_tokenizer()), hidden_size=D_MODEL, intermediate_size=64,
        num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=256, tie_word_embeddings=False,
    )  # fmt: skip
    model = load_model(save_random(config, tiny_tokenizer(), tmp_path / "nemotron"), device="cpu")
    norm, sae = model.original_model.model.norm, random_sae()
    with torch.no_grad():
        norm.weight.copy_(0.5 * torch.randn(D_MODEL, generator=torch.Generator().manual_seed(0)))
    rows = sae.W_dec[LATENTS]
    rows = rows - rows.mean(-1, keepdim=True)
    expected = (rows * (norm.weight + 1)) @ model.W_U
    assert torch.equal(logit_lens(model, sae, LATENTS, 7), expected.topk(7, dim=-1).indices)


def test_logit_lens_by_hand(llama, random_sae):
    sae = random_sae("topk", rescale_acts_by_decoder_norm=True)
    gain, W_U = llama.original_model.model.norm.weight, llama.original_model.lm_head.weight.T
    found = logit_lens(llama, sae, LATENTS)
    assert found.shape == (3, 10)
    for latent, tokens in zip(LATENTS, found, strict=True):
        logits = (sae.W_dec[latent] * gain) @ W_U
        assert tokens.tolist() == logits.argsort(descending=True)[:10].tolist()


def test_lowered_tokens_are_at_the_other_end(llama, random_sae):
    sae = random_sae()
    every = logit_lens(llama, sae, LATENTS, int(llama.cfg.d_vocab))
    assert torch.equal(logit_lens(llama, sae, LATENTS, 5, lowers=True), every.flip(-1)[:, :5])


def test_tokens_keep_their_blanks_where_a_tokenizer_drops_a_first_one():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {token: i for i, token in enumerate(["<unk>", "\u2581a", "\u2581the", "the", "a"])}
    words = Tokenizer(models.WordPiece(vocab=vocab, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Metaspace()
    words.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")
    assert tokenizer.decode([2]) == tokenizer.decode([3]) == "the"
    assert [token_text(tokenizer, token) for token in (2, 3)] == [" the", "the"]
