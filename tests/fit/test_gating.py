from dataclasses import replace

import numpy as np
import pytest

from saepd.common.errors import InputError
from saepd.directions.saving import load_from_disk, save_to_disk
from saepd.feedback.schema import Feedback
from saepd.fit.config import LearningConfig
from saepd.fit.learn import learn_directions
from saepd.readout.options import read_options

OPTIONS = ("no", "yes")
THINGS = ("tea", "rain", "soup", "bread", "salt", "wool", "mist")
FEW = LearningConfig(n_latents=4, shared=(0.001,), own=(0.02,), biases=(0.01,), own_readout=(0.1,))


def rows(options_of=lambda thing: OPTIONS):
    """Half of the items get yes from one perspective and no from the other, by what they hold."""
    found = []
    for name in ("left", "right"):
        for thing in THINGS:
            for kind in (False, True):
                prompt = f"{thing} is {'zzzzzzzzzz' if kind else 'aaaaaaaaaa'}."
                options = options_of(thing)
                found.append(
                    Feedback(
                        id=f"{name} {prompt}",
                        perspective=name,
                        prompt=prompt,
                        options=options,
                        answer=options[int(kind == (name == "left"))],
                    )
                )
    return found


@pytest.fixture(scope="module")
def fit(llama, random_sae):
    return learn_directions(llama, random_sae(), rows(), None, FEW)


def test_labels_that_items_decide_get_gates(llama, fit):
    assert all(direction.gate is not None for direction in fit.directions)
    assert fit.verdict.supported and fit.verdict.steers
    assert fit.verdict.gate in ("writes alone", "weighs the direction")
    assert fit.verdict.gain.low > fit.verdict.controls["the same without a gate"].estimate
    assert "by gates helps" in str(fit.verdict)
    new = [
        Feedback(id=p, perspective="left", prompt=p, options=OPTIONS, answer="no").as_item()
        for p in ("glass is aaaaaaaaaa.", "glass is zzzzzzzzzz.")
    ]
    first, second = (row.log_probs().exp() for row in read_options(llama, new, fit.directions))
    assert second[1, 1] > first[1, 1] and first[2, 1] > second[2, 1]


def test_what_is_saved_answers_alike(llama, random_sae, fit, tmp_path):
    save_to_disk(fit.directions, tmp_path, verdict=fit.verdict.as_json())
    loaded = load_from_disk(tmp_path, llama, random_sae())
    items = [row.as_item() for row in rows()[:4]]
    both = zip(
        read_options(llama, items, fit.directions), read_options(llama, items, loaded), strict=True
    )
    for one, other in both:
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)


def test_gates_can_be_left_out_or_asked_for(llama, random_sae):
    never = learn_directions(llama, random_sae(), rows(), None, replace(FEW, gate="never"))
    assert all(direction.gate is None for direction in never.directions)
    assert never.verdict.gate == ""
    other = rows(lambda thing: ("no", "yes") if thing < "n" else ("nay", "yea"))
    steered = replace(FEW, gate="always", anyway=True)
    weighed = learn_directions(llama, random_sae(), other, None, steered)
    assert weighed.verdict.gate == "weighs the direction"
    assert all(direction.gate.bias == 1 for direction in weighed.directions)
    coins = iter(np.random.default_rng(0).integers(2, size=99))
    by_chance = [row.model_copy(update={"answer": row.options[next(coins)]}) for row in other]
    with pytest.raises(InputError, match="nothing for a gate to weigh"):
        learn_directions(llama, random_sae(), by_chance, None, replace(FEW, gate="always"))
    with pytest.raises(InputError, match="unknown use of gates 'sometimes'"):
        replace(FEW, gate="sometimes")
