from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import SITE

from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.directions.fitted_readout import FittedReadout
from saepd.directions.gate import Reader, read_amounts
from saepd.feedback.schema import Feedback
from saepd.fit.amounts import Written
from saepd.fit.asked import ask
from saepd.fit.gates import contrast, learn_gates
from saepd.fit.gauss_newton import around_nothing
from saepd.fit.penalised import Ridge
from saepd.fit.validate import folds
from saepd.models.wording import ReadoutConfig
from saepd.readout.options import read_options

OPTIONS = ("no", "yes")
RIDGE = Ridge(biases=0.01, own_readout=0.1)
THINGS = ("tea", "rain", "soup", "bread", "salt", "wool", "mist", "corn", "milk", "wood")


def report(*_):
    pass


def row(kind, thing, perspective):
    prompt = f"{thing} is {'zzzzzzzzzz' if kind else 'aaaaaaaaaa'}."
    answer = "yes" if kind == (perspective == "left") else "no"
    return Feedback(
        id=f"{perspective} {prompt}", item=prompt, perspective=perspective, prompt=prompt,
        options=OPTIONS, answer=answer,
    )  # fmt: skip


ROWS = [row(k, thing, p) for p in ("left", "right") for thing in THINGS for k in (False, True)]


@pytest.fixture(scope="module")
def sae(random_sae):
    return random_sae()


@pytest.fixture(scope="module")
def asked(llama, sae):
    reader = Reader(SITE, sae)
    return ask(llama, ROWS, [SITE], ReadoutConfig(), "answer", report, readers=[reader])


def test_what_gates_read_is_the_same_alone_as_while_questions_run(asked, llama):
    alone = read_amounts(llama, asked.captured.rows, asked.readers)[asked.readers[0]]
    together = np.stack(list(asked.readings.values()))
    assert together == pytest.approx(alone.double().numpy(), abs=1e-4)
    assert together.any()


@pytest.fixture(scope="module")
def learned(llama, sae, asked):
    around = around_nothing(asked, report)
    vector = contrast(around, asked)
    written = Written(dict.fromkeys(asked.perspectives, vector), 0.0, {})
    return learn_gates(asked, written, around, RIDGE, folds(asked, 5), report)


def directions(learned, sae):
    return [
        Direction(
            name,
            SITE,
            AddVector(torch.from_numpy(vector)),
            gate=learned.gate(name, SITE, sae),
            readout=FittedReadout(ReadoutConfig(), [1.0, 0.0, 0.0, 0.0], learned.readout[name]),
        )
        for name, vector in learned.written.vectors.items()
    ]


def test_a_contrast_moves_every_option_by_a_nat_and_raises_the_last(llama, asked):
    around = around_nothing(asked, report)
    vector = contrast(around, asked)
    moves = np.stack([own.gradients - own.gradients.mean(0) for own in around.values()]) @ vector
    assert np.sqrt(np.square(moves).mean()) == pytest.approx(1)
    assert moves[:, 1].mean() > 0


def test_gates_tell_items_apart_which_no_single_amount_could(learned):
    # Of either answer each perspective gave ten: without reading, log 2 is what can be had.
    assert learned.losses.mean() < 0.5
    assert len(learned.losses) == len(ROWS)
    weights = [learned.weights[name] for name in ("left", "right")]
    assert weights[0] @ weights[1] < 0


def test_what_was_learned_is_what_runs(llama, sae, learned):
    for edit in directions(learned, sae):
        mine = [row for row in ROWS if row.perspective == edit.perspective]
        read = read_options(llama, [row.as_item() for row in mine], [edit])
        right = [
            int(one.scores[1].argmax()) == OPTIONS.index(row.answer)
            for row, one in zip(mine, read, strict=True)
        ]
        assert np.mean(right) > 0.9
        assert "within" in repr(edit.gate)


def test_answers_to_others_items_depend_on_what_they_hold(llama, sae, learned):
    items = [row(kind, "glass", "left").as_item() for kind in (False, True)]
    first, second = read_options(llama, items, directions(learned, sae))
    # left says yes to the second, right to the first.
    assert second.scores[1, 1] > first.scores[1, 1]
    assert first.scores[2, 1] > second.scores[2, 1]


def test_a_gate_may_weigh_directions_that_are_there_already(llama, sae, asked, learned):
    asked = replace(asked, readers=(Reader(SITE),))
    vectors = {name: (i + 1) * v for i, (name, v) in enumerate(learned.written.vectors.items())}
    around = around_nothing(asked, report)
    [moved] = asked.moved(asked.pairs(vectors))
    written = Written(vectors, 1.0, moved)
    gated = learn_gates(asked, written, around, RIDGE, folds(asked, 5), report)
    assert gated.gate("left", SITE, None).bias == 1.0
    assert gated.losses.mean() < 0.5
    for low, high in gated.limits.values():
        assert low < 1 < high
