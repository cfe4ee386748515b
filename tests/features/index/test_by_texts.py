import numpy as np

from saepd.features.index.by_texts import ReadTexts, _surprise
from saepd.features.index.statistics import QUANTILES


def test_surprise_by_hand():
    quantiles = np.tile(np.linspace(0, 12, len(QUANTILES)), (3, 1))
    n_firings, n_counted = np.array([100, 100, 0]), 999
    latents, values = np.array([0, 0, 1, 2]), np.array([1.0, 5.0, 20.0, 1.0])
    row = (latents, np.zeros(4, int), values, np.ones(10, bool))
    found = _surprise(row, quantiles, n_firings, n_counted)
    # Half of latent 0's firings are below 5: 50 of 1000 tokens are above, ten are read.
    assert np.isclose(found[0], -np.log10(1 - np.exp(-10 * 50 / 1000)))
    # What was never seen counts as one firing.
    never = -np.log10(1 - np.exp(-10 / 1000))
    assert np.allclose(found[1:], never)


def test_a_text_of_the_collection_is_read_as_there(llama, tiny_topk, index, texts):
    read = ReadTexts(llama, tiny_topk, index, texts[:2])
    latent = int(index.density.argmax())
    context = read.context(latent, 0)
    assert context.text in texts[0]
    assert context.activation == max(context.activations)
    assert context.activation <= index.largest[latent] * 1.001
    silent = np.flatnonzero(read.surprise[0] == 0)
    assert read.context(int(silent[0]), 0) is None
