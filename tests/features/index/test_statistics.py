import numpy as np

from saepd.features.index.statistics import PLACES, QUANTILES, places, statistics


def test_statistics_by_hand():
    values = np.array([4.0, 1.0, 2.0, 3.0], dtype=np.float32)
    found = statistics(values, np.array([0, 1, 5, 300]))
    assert found.quantiles[[0, QUANTILES.index(0.5), -1]].tolist() == [1.0, 2.5, 4.0]
    assert found.histogram.sum() == 4
    # Bins are a quarter wide; an activation on a bound is in the bin above, but for the largest.
    assert np.flatnonzero(found.histogram).tolist() == [4, 8, 12, 15]
    assert dict(zip(PLACES, found.places.tolist(), strict=True)) == {
        0: 1, 1: 1, 2: 0, 4: 1, 8: 0, 16: 0, 32: 0, 64: 0, 128: 1,
    }  # fmt: skip


def test_a_silent_latent_has_zeros():
    found = statistics(np.empty(0, dtype=np.float32), np.empty(0, dtype=int))
    assert not any(part.any() for part in found)


def test_places_hold_every_depth():
    assert places(np.arange(1000)).sum() == 1000
