from dataclasses import replace

import numpy as np
import pytest
from tiny import D_MODEL, SITE

from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.directions.fitted_readout import FittedReadout
from saepd.feedback.schema import Feedback
from saepd.fit.voice import learn_voice
from saepd.models.wording import ReadoutConfig
from saepd.readout.options import read_options

OPTIONS = ("yes", "no", "not sure")
# The random model likes short options far too well.
BASE = (0.02, 0.0, 0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def known():
    rng = np.random.default_rng(0)
    return [
        Direction(
            name,
            SITE,
            AddVector(rng.normal(size=D_MODEL) / 2),
            readout=FittedReadout(ReadoutConfig(), BASE, own),
        )
        for name, own in (
            ("a", [0.02, 1.0, -1.0, 0.0, 0.0]),
            ("b", [0.02, -1.0, 1.0, 0.0, 0.0]),
            ("c", [0.02, -1.0, -1.0, 2.0, 0.0]),
        )
    ]


def answers(model, direction, n=12, name="new"):
    """What one known perspective would answer, as whole distributions."""
    rows = []
    for i in range(n):
        item = Feedback(
            id=f"{name}{i}", perspective=name, prompt=f"Is {i} so?", options=OPTIONS, answer="yes"
        )
        [read] = read_options(model, item.as_item(), direction)
        shares = read.log_probs()[1].exp().double()
        rows.append(
            item.model_copy(
                update={"answer": None, "distribution": tuple((shares / shares.sum()).tolist())}
            )
        )
    return rows


def test_a_voice_that_speaks_like_one_is_found_to(llama, known):
    voice = learn_voice(llama, known, answers(llama, known[1]))
    assert max(voice.weights, key=voice.weights.get) == "b"
    assert voice.weights["b"] > 0.6
    assert voice.in_span
    assert voice.gain.low > 0
    assert str(voice).startswith("The mixture gains +")
    assert voice.direction.perspective == "new"
    # What the mixture writes and reads is what its weights say.
    vector = sum(voice.weights[d.perspective] * d.constant for d in known)
    np.testing.assert_allclose(voice.direction.constant, vector, atol=1e-5)
    item = answers(llama, known[1], 1)[0].as_item()
    [theirs], [ours] = (read_options(llama, item, d) for d in (known[1], voice.direction))
    np.testing.assert_allclose(ours.log_probs()[1].exp(), theirs.log_probs()[1].exp(), atol=0.15)


def test_a_voice_of_nobody_known_is_said_to_be_one(llama, known):
    away = Direction(
        "d",
        SITE,
        AddVector(np.zeros(D_MODEL)),
        readout=FittedReadout(ReadoutConfig(), known[0].readout.base, [0.0, 3.0, 3.0, -6.0, 0.0]),
    )
    twins = [known[2], replace(known[2], perspective="e")]
    voice = learn_voice(llama, twins, answers(llama, away))
    assert not voice.in_span
    assert str(voice).startswith("Warning: ")


def test_what_cannot_be_mixed_is_refused(llama, known):
    rows = answers(llama, known[0])
    plain = Direction("a", SITE, AddVector(np.ones(D_MODEL)))
    with pytest.raises(InputError, match="at least two known perspectives"):
        learn_voice(llama, known[:1], rows)
    with pytest.raises(InputError, match="two known perspectives are called 'a'"):
        learn_voice(llama, [known[0], known[0]], answers(llama, known[0], n=6))
    with pytest.raises(InputError, match="'a' has no readout"):
        learn_voice(llama, [plain, known[1]], rows)
    with pytest.raises(InputError, match="of 2 perspectives"):
        learn_voice(llama, known, rows + answers(llama, known[0], 2, "other"))
    with pytest.raises(InputError, match="at least 5 questions, not on 3"):
        learn_voice(llama, known, rows[:3])
