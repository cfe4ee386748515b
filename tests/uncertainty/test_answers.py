import numpy as np
import pytest
import torch
from asked import CLOSED, FREE, directions
from scipy.special import softmax

from saepd.feedback.reading import write_feedback
from saepd.feedback.schema import Feedback
from saepd.models.wording import ReadoutConfig
from saepd.readout.calibrate import fit_temperature
from saepd.readout.options import read_options
from saepd.uncertainty.answers import (
    Reading,
    answers_over_options,
    answers_over_samples,
    fit_reading,
)
from saepd.uncertainty.asking_again import FREE_TEXT
from saepd.uncertainty.config import EpistemicConfig


def test_the_temperature_is_fitted_on_the_feedback(llama, tmp_path):
    rows = [
        Feedback(
            id=str(i),
            perspective="p",
            item=item.id,
            prompt=item.prompt,
            options=item.options,
            answer=item.options[i % 2],
        )
        for i, item in enumerate(CLOSED)
    ]
    reading = fit_reading(llama, [*CLOSED, FREE], rows, centre=True)
    read = read_options(llama, CLOSED, [])
    assert set(reading.offsets) == {CLOSED[0].options}
    np.testing.assert_allclose(
        reading.offsets[CLOSED[0].options], (read[0].scores[0] + read[1].scores[0]) / 2, atol=1e-4
    )
    centred = [
        s.scores[0] - reading.offsets.get(i.options, 0) for i, s in zip(CLOSED, read, strict=True)
    ]
    targets = [np.eye(len(r.options))[r.options.index(r.answer)] for r in rows]
    assert reading.temperature == pytest.approx(fit_temperature(centred, targets), rel=1e-3)
    write_feedback(tmp_path / "rows.jsonl", rows)
    plain = fit_reading(llama, [*CLOSED, FREE], tmp_path / "rows.jsonl")
    assert plain.offsets == {}
    expected = fit_temperature([s.scores[0] for s in read], targets)
    assert plain.temperature == pytest.approx(expected, rel=1e-3)
    assert fit_reading(llama, [FREE], centre=True) == fit_reading(llama, CLOSED) == Reading()


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
