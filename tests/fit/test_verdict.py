from dataclasses import replace

import pytest

from saepd.fit.verdict import TITLES, Verdict
from saepd.metrics.intervals import Interval

HELPS = Verdict(
    supported=True,
    steers=True,
    unsteered=1.1,
    gain=Interval(0.03, 0.01, 0.05),
    by_perspective={"a": Interval(0.02, -0.01, 0.05), "b": None},
    controls={TITLES["random"]: Interval(0.004, -0.001, 0.009)},
    n_answers={"a": 10, "b": 10},
    n_controlled=20,
    n_latents=4,
)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "Steering helps: +0.0300 nats an answer [+0.0100, +0.0500]"),
        ({}, "random latents gain +0.0040."),
        ({"n_controlled": 8}, "random latents gain +0.0040 on 8 of the answers."),
        ({"gate": "writes alone"}, "Steering by gates helps: "),
        # More than a standard error, but chance could have done it.
        ({"gain": Interval(0.03, -0.01, 0.07)}, "Steering may help: +0.0300"),
        ({"supported": False, "steers": False}, "does not support steering, so nothing is written"),
        ({"supported": False}, "so it is written all the same"),
        ({"gain": None}, "too little feedback"),
    ],
)
def test_the_sentence_says_how_sure_it_is(changes, said):
    assert said in str(replace(HELPS, **changes))


def test_a_frame_has_the_directions_each_perspectives_own_and_the_controls():
    frame = HELPS.frame()
    assert list(frame.what) == ["directions", "a's own", "b's own", TITLES["random"]]
    assert frame.gain.isna().tolist() == [False, False, True, False]
