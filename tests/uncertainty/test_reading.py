import numpy as np
import pytest
from asked import CLOSED, FREE

from saepd.feedback.reading import write_feedback
from saepd.feedback.schema import Feedback
from saepd.readout.calibrate import fit_temperature
from saepd.readout.options import read_options
from saepd.uncertainty.reading import Reading, fit_reading


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
