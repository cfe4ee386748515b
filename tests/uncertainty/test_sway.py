import math

import numpy as np
import pytest
import torch
from tiny import D_MODEL, SITE

from saepd.branches.run import score_continuations
from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.uncertainty.sway import MULTIPLES, Sway, sway

PROMPTS = ["Is it so? Say:", "Another question, a longer one:"]
OPTIONS = [["yes", "no"], ["one", "two", "three"]]
FINEST = 2 ** (1 / 8)


def plain(scores, _place):
    return scores.log_softmax(-1)


def dense(seed=0, coefficient=1.0, positions="answer", name=SITE):
    vector = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(seed))
    return Direction(
        f"d{seed}", name, AddVector(vector), positions=positions, coefficient=coefficient
    )


def answers(model, prompt, options, direction, multiple):
    [(scores, _)] = score_continuations(
        model, [prompt], [options], [direction.scaled(multiple * direction.coefficient)]
    )
    return scores.double().softmax(-1).numpy()


@pytest.mark.parametrize("positions", ["answer", "all"])
def test_the_flip_is_where_the_answer_changes_and_not_before(llama, positions):
    directions = [dense(seed, positions=positions) for seed in range(4)]
    found = sway(llama, PROMPTS, OPTIONS, directions, [plain, plain])
    assert np.isfinite([own.flip for own in found]).any()
    for prompt, options, own in zip(PROMPTS, OPTIONS, found, strict=True):
        for direction, flip in zip(directions, own.flip, strict=True):
            if math.isinf(flip):
                for multiple in MULTIPLES:
                    base, steered = answers(llama, prompt, options, direction, multiple)
                    assert steered.argmax() == base.argmax()
                continue
            base, steered = answers(llama, prompt, options, direction, flip)
            assert steered.argmax() != base.argmax()
            base, steered = answers(llama, prompt, options, direction, flip / FINEST)
            assert steered.argmax() == base.argmax() or flip <= MULTIPLES[0]


def test_what_moves_is_the_largest_total_variation_within_the_budget(llama):
    direction = dense()
    found = sway(llama, PROMPTS, OPTIONS, [direction], [plain, plain])
    for prompt, options, own in zip(PROMPTS, OPTIONS, found, strict=True):
        distances = []
        for multiple in MULTIPLES:
            base, steered = answers(llama, prompt, options, direction, multiple)
            distances.append(np.abs(base - steered).sum() / 2 if multiple <= 1 else 0)
        assert own.moved[0] == pytest.approx(max(distances), abs=1e-5)
        assert 0 <= own.moved[0] <= 1


def test_multiples_are_of_the_directions_own_coefficient(llama):
    whole = [dense(seed) for seed in range(4)]
    half = [dense(seed, coefficient=0.5) for seed in range(4)]
    of_whole, of_half = (
        sway(llama, PROMPTS, OPTIONS, directions, [plain, plain]) for directions in (whole, half)
    )
    flips = np.concatenate([own.flip for own in of_whole])
    flips_of_half = np.concatenate([own.flip for own in of_half])
    seen_by_both = flips <= MULTIPLES[-1] / 2
    assert seen_by_both.any()
    np.testing.assert_allclose(flips_of_half[seen_by_both], 2 * flips[seen_by_both], rtol=1e-6)
    for own, own_half in zip(of_whole, of_half, strict=True):
        assert (own_half.moved <= own.moved + 1e-6).all()


def test_directions_are_told_apart_and_their_order_means_nothing(llama):
    directions = [dense(0), dense(1), dense(2, name="blocks.2.hook_resid_post")]
    forth = sway(llama, PROMPTS, OPTIONS, directions, [plain, plain])
    back = sway(llama, PROMPTS, OPTIONS, directions[::-1], [plain, plain])
    for one, other in zip(forth, back, strict=True):
        np.testing.assert_allclose(one.moved, other.moved[::-1], atol=1e-5)
        np.testing.assert_allclose(one.flip, other.flip[::-1], rtol=1e-6)


def test_a_reading_decides_what_the_answers_are(llama):
    # Whatever the model says, the first answer is taken.
    deaf = [lambda s, _place: torch.log(torch.tensor([[0.9, 0.1]])).expand(len(s), 2)] * 2
    for own in sway(llama, PROMPTS, OPTIONS, [dense()], deaf):
        assert own.moved.tolist() == [0] and own.flip.tolist() == [math.inf]
        assert own.ease == 0


def test_each_direction_is_read_in_its_own_way_beside_a_base_that_is_read_alike(llama):
    told = []

    def noting(scores, place):
        told.append((place, len(scores)))
        return scores.log_softmax(-1) if place else scores.log_softmax(-1) * 0 - math.log(2)

    [own] = sway(llama, PROMPTS[:1], OPTIONS[:1], [dense(0), dense(1)], [noting])
    [expected] = sway(llama, PROMPTS[:1], OPTIONS[:1], [dense(0), dense(1)], [plain])
    assert own.moved[0] == 0 and own.flip[0] == math.inf
    assert (own.moved[1], own.flip[1]) == (expected.moved[1], expected.flip[1])
    assert told[:2] == [(0, 1 + len(MULTIPLES)), (1, 1 + len(MULTIPLES))]


def test_ease_by_hand():
    assert Sway(np.array([0.1, 0.2]), np.array([4.0, 0.5])).ease == 2


def test_what_cannot_sway(llama):
    with pytest.raises(InputError, match="no directions"):
        sway(llama, PROMPTS, OPTIONS, [], [plain, plain])
    with pytest.raises(InputError, match="'d0' has the coefficient 0"):
        sway(llama, PROMPTS, OPTIONS, [dense(coefficient=0.0)], [plain, plain])
