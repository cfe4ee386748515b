import numpy as np
import torch
from asked import CLOSED, FREE, directions
from scipy.special import softmax

from saepd.models.wording import ReadoutConfig
from saepd.readout.options import read_options
from saepd.uncertainty.answers import answers_over_options, answers_over_samples
from saepd.uncertainty.asking_again import FREE_TEXT
from saepd.uncertainty.config import EpistemicConfig
from saepd.uncertainty.reading import Reading


def test_options_are_read_with_offsets_and_a_temperature(llama):
    edits, item = directions(), CLOSED[0]
    reading = Reading(2.0, {item.options: torch.tensor([1.0, 0.0, -1.0])})
    [own] = answers_over_options(llama, [item], edits, reading, ReadoutConfig())
    [read] = read_options(llama, [item], edits)
    expected = softmax((read.scores.double().numpy() - [1, 0, -1]) / 2, axis=1)
    np.testing.assert_allclose(own.log_probs.exp().numpy(), expected, atol=1e-6)
    assert own.readable and own.answers == own.texts == item.options


def test_nothing_asked_is_nothing_answered(llama):
    assert answers_over_options(llama, [], [], Reading(), ReadoutConfig()) == []
    config = EpistemicConfig()
    assert answers_over_samples(llama, [], [], ReadoutConfig(), config, FREE_TEXT) == []


def test_every_text_is_of_one_answer(llama):
    config = EpistemicConfig(n_samples=4)
    [own] = answers_over_samples(llama, [FREE], directions(), ReadoutConfig(), config, FREE_TEXT)
    log_probs = own.log_probs
    assert log_probs.shape == (3, len(own.answers))
    assert set(own.answers) <= set(own.texts)
    torch.testing.assert_close(log_probs.logsumexp(-1), torch.zeros(3).double())
