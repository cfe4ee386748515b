import numpy as np
import pytest
from tiny import tiny_tokenizer

from saepd.features.index.config import IndexConfig
from saepd.features.index.labels import WHERE, Labeller, log_odds
from saepd.features.index.passages import NO_WORD, cut_passages

MERGES = [("b", "u"), ("bu", "s"), ("Ġ", "bus"), ("a", "x"), ("t", "ax"), ("Ġ", "tax")]


@pytest.fixture(scope="module")
def passages():
    rng = np.random.default_rng(0)
    words = ["red", "cat", "dog", "sun", "sea", "oak"]
    texts = []
    for i in range(400):
        some = " ".join(rng.choice(words, 6))
        texts.append(f"{some} {'bus' if i % 4 == 0 else 'tax' if i % 4 == 1 else 'fog'} {some}")
    return cut_passages(tiny_tokenizer(opens=False, merges=MERGES), texts, IndexConfig())


def terms(passages, label):
    return [
        (passages.vocabulary[word], WHERE[where])
        for word, where in zip(label.words, label.where, strict=True)
        if word != NO_WORD
    ]


def test_a_latent_of_one_word_is_labelled_with_it(passages):
    at = passages.vocabulary.index("bus")
    positions = np.flatnonzero(passages.words == at)
    labeller = Labeller(passages, np.ones(passages.n_tokens, dtype=bool), 0)
    label = labeller.label(3, positions, np.ones(len(positions), dtype=np.float32))
    assert terms(passages, label)[0] == ("bus", "at")
    assert label.score > 0.99


def test_a_latent_that_fires_behind_a_word_says_so(passages):
    at = passages.vocabulary.index("tax")
    positions = np.flatnonzero(passages.before == at)
    labeller = Labeller(passages, np.ones(passages.n_tokens, dtype=bool), 0)
    label = labeller.label(3, positions, np.ones(len(positions), dtype=np.float32))
    assert ("tax", "after") in terms(passages, label) or ("tax", "near") in terms(passages, label)
    assert label.score > 0.95


def test_a_latent_that_fires_anywhere_has_no_label_that_holds(passages):
    rng = np.random.default_rng(1)
    positions = np.sort(rng.choice(passages.n_tokens, 2000, replace=False))
    values = rng.random(2000).astype(np.float32)
    labeller = Labeller(passages, np.ones(passages.n_tokens, dtype=bool), 0)
    assert abs(labeller.label(3, positions, values).score - 0.5) < 0.1


def test_a_silent_latent_has_no_terms_and_no_score(passages):
    labeller = Labeller(passages, np.ones(passages.n_tokens, dtype=bool), 0)
    label = labeller.label(3, np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))
    assert terms(passages, label) == []
    assert np.isnan(label.score)


def test_log_odds_by_hand():
    here, everywhere = np.array([9.0]), np.array([50.0])
    prior = 100 * 50 / 1000
    odds, error = log_odds(here, everywhere, 20.0, 1000.0)
    own = np.log((9 + prior) / (20 + 100 - 9 - prior))
    rest = np.log((50 + prior) / (1000 + 100 - 50 - prior))
    assert np.isclose(odds[0], own - rest)
    assert np.isclose(error[0], np.sqrt(1 / (9 + prior) + 1 / (50 + prior)))
