from dataclasses import replace

import numpy as np
import torch

from saepd.features.encode import Pairs
from saepd.features.held_out import held_out_gain
from saepd.feedback.schema import Feedback


def pairs(values, n_questions=10):
    """As many rows of A as of B, question after question, with one latent."""
    rows = [
        Feedback(
            id=f"r{i}", perspective="AB"[i % 2], prompt=f"Q{i // 2 % n_questions}?",
            item=f"q{i // 2 % n_questions}", options=("Yes", "No"), answer="Yes",
        )
        for i in range(len(values))
    ]  # fmt: skip
    column = torch.tensor(values, dtype=torch.float32)[:, None]
    return Pairs(
        rows=rows,
        positive_texts=["x"] * len(rows),
        latents=column,
        residuals=column,
        density=torch.ones(1),
        special_density=torch.zeros(1),
        positive_latents=column,
    )


def test_a_latent_that_tells_everywhere_gains():
    values = np.tile([2.0, 0.0], 100) + np.random.default_rng(0).normal(0, 0.3, 200)
    found = held_out_gain(pairs(values), "A", 0)
    assert 0.4 < found.low <= found.estimate <= np.log(2)


def test_a_latent_of_one_question_gains_nothing_on_others():
    tells = np.arange(200) // 2 % 10 == 0
    values = np.where(tells, np.tile([2.0, 0.0], 100), 1.0)
    assert held_out_gain(pairs(values), "A", 0).estimate < 0.05


def test_noise_does_not_gain():
    values = np.random.default_rng(0).normal(size=200)
    found = held_out_gain(pairs(values), "A", 0)
    assert found.estimate < 0.01
    assert found.low < 0


def test_without_others_or_questions_there_is_nothing_to_foretell():
    one = pairs(np.ones(20))
    alone = [row.model_copy(update={"perspective": "A"}) for row in one.rows]
    assert held_out_gain(replace(one, rows=alone), "A", 0) is None
    assert held_out_gain(pairs(np.ones(20), n_questions=1), "A", 0) is None
