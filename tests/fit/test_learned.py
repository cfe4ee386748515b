from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax
from tiny import SITE, save_tiny_model

from saepd.branches.gradients import option_gradients
from saepd.common.errors import InputError
from saepd.feedback.schema import Feedback
from saepd.fit.config import ScaleConfig
from saepd.fit.learn import centred_gradients, learn_directions
from saepd.fit.learned import read_learned
from saepd.models.load import load_model
from saepd.models.prompts import item_prompt
from saepd.models.wording import ReadoutConfig
from saepd.readout.softmax import option_features

QUICK = ScaleConfig(n_latents=(4,), shared=(0.001,), own=(0.005, 0.02))
OPTIONS = ("yes", "no", "not sure")
ROWS = [
    Feedback(id=f"{name}{i}", perspective=name, prompt=f"Is {i} so?", options=OPTIONS, answer=a)
    for i in range(12)
    for name, a in (("a", "yes"), ("b", "no"))
]


@pytest.fixture(scope="module")
def fit(llama, random_sae):
    return learn_directions(llama, random_sae(), ROWS, None, QUICK)


def test_what_is_read_is_what_the_scales_foretell(llama, fit):
    item, scales = ROWS[0].as_item(), fit.learned.scales
    [read] = read_learned(llama, [item], fit.directions)
    prompt = item_prompt(llama, item.prompt, item.options, ReadoutConfig())
    [(scores, gradients)] = option_gradients(llama, [prompt], [OPTIONS], SITE)
    scores, gradients = scores[0].double().numpy(), gradients[0, :, 0]
    expected = [option_features(scores, len(scales.base) - 2) @ scales.base]
    for name, weights in scales.readout.items():
        moved = centred_gradients(gradients.numpy()) @ fit.learned.vectors[name]
        expected.append(option_features(scores, len(weights) - 2) @ weights + moved)
    np.testing.assert_allclose(
        read.scores.exp(), np.stack([softmax(row) for row in expected]), atol=0.03
    )
    # Half the coefficient is half the move.
    [half] = read_learned(llama, [item], [d.scaled(0.5) for d in fit.directions])
    middle = softmax(
        (expected[1] + option_features(scores, len(weights) - 2) @ scales.readout["a"]) / 2
    )
    np.testing.assert_allclose(half.scores[1].exp(), middle, atol=0.03)


def test_directions_of_another_kind_are_not_read_so(llama, fit):
    [first, *_] = fit.directions
    with pytest.raises(InputError, match="were not learned"):
        read_learned(llama, [ROWS[0].as_item()], [replace(first, lineage={})])
    with pytest.raises(InputError, match="were not learned"):
        read_learned(llama, [ROWS[0].as_item()], [])


def test_learned_directions_are_read_as_they_were_learned_or_refused(llama, fit):
    with pytest.raises(InputError, match="learned with another readout"):
        read_learned(
            llama, [ROWS[0].as_item()], fit.directions, ReadoutConfig(template="{prompt} -")
        )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_refused(fit, random_sae, tmp_path, dtype):
    half = load_model(save_tiny_model("llama", tmp_path / "llama"), device="cpu", dtype=dtype)
    match = f"small differences, which {dtype} drowns: load the model in float32"
    with pytest.raises(InputError, match=match):
        learn_directions(half, random_sae(), ROWS, None, QUICK)
    with pytest.raises(InputError, match=match):
        read_learned(half, [ROWS[0].as_item()], fit)


@pytest.mark.parametrize(
    "lineage",
    [
        {"learned": 3},
        {"learned": {"readout": [1.0, 2.0, 3.0]}, "config": {"readout": {}}},
        {"learned": {"readout": "x", "base_readout": [1.0, 0.0, 0.0]}, "config": {"readout": {}}},
    ],
)
def test_a_lineage_without_its_readout_is_refused(llama, fit, lineage):
    [first, *_] = fit.directions
    with pytest.raises(InputError, match="lineage does not tell its readout"):
        read_learned(llama, [ROWS[0].as_item()], replace(first, lineage=lineage))
