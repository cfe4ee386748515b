import torch
from tiny import save_tiny_sae

from saepd.features.index.build import build_index
from saepd.features.index.config import IndexConfig
from saepd.features.index.reading import OWN, load_index
from saepd.features.lens import logit_lens, token_text
from saepd.features.words import latent_words
from saepd.saes.load import load_sae


def test_latents_without_an_index_are_told_by_the_tokens_they_promote(llama, random_sae):
    sae = random_sae()
    found = latent_words(llama, sae, [5, 9])

    for said, tokens in zip(found, logit_lens(llama, sae, torch.tensor([5, 9])), strict=True):
        first = token_text(llama.tokenizer, int(tokens[0]))
        assert said.startswith(f"promotes {first!r}")
    assert latent_words(llama, sae, []) == []


def test_latents_of_an_sae_with_an_index_are_told_by_its_labels(llama, tmp_path):
    folder = save_tiny_sae(tmp_path / "sae", model_name=str(llama.cfg.model_name))
    sae = load_sae(folder, model=llama, any_model=True)
    texts = [f"the {word} is here and the {word} is there" for word in ("cat", "dog", "sun")] * 8
    build_index(llama, sae, texts, folder / OWN, IndexConfig())
    index = load_index(folder / OWN)
    assert latent_words(llama, sae, [0, 7]) == [index.page(0).label, index.page(7).label]
