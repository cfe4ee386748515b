import numpy as np
import torch

from saepd.features.index.neighbours import alike, together


def test_firing_together_is_a_correlation():
    rng = np.random.default_rng(0)
    fires = rng.random((300, 400)) < 0.2
    fires[1] = fires[0]
    fires[7] = False
    found = together([np.flatnonzero(row) for row in fires], 400, n=3)
    with np.errstate(invalid="ignore"):
        expected = np.nan_to_num(np.corrcoef(fires.astype(float)))
    np.fill_diagonal(expected, -1)
    assert found.ids[0, 0] == 1
    for latent in (0, 5, 299):
        best = np.sort(expected[latent])[::-1][:3]
        assert np.allclose(found.scores[latent], best, atol=1e-5)
    assert not found.scores[7].any()


def test_writing_alike_is_a_cosine():
    decoder = torch.randn(600, 8)
    found = alike(decoder, n=2)
    rows = torch.nn.functional.normalize(decoder, dim=-1)
    cosines = rows @ rows.T - 2 * torch.eye(600)
    assert np.array_equal(found.ids[:, 0], cosines.argmax(1).numpy())
    assert np.allclose(found.scores, cosines.topk(2).values.numpy(), atol=1e-5)
