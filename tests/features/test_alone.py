import numpy as np
import pytest
import torch

from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.features.alone import run_alone
from saepd.features.config import FeatureConfig
from saepd.features.encode import encode_pairs
from saepd.features.select import select_all
from saepd.feedback.schema import Feedback
from saepd.models.wording import ReadoutConfig
from saepd.readout.options import read_options

CONFIG = FeatureConfig(k=3, n_bootstrap=4, min_stability=0, max_density=1)


@pytest.fixture(scope="module")
def rows():
    return [
        Feedback(
            id=f"{name}{i}", perspective=name, prompt=f"Q{i % 3}?", item=f"q{i % 3}",
            options=("Yes", "No", "Unsure"), answer=("Yes", "No", "No")[(i + (name == "B")) % 3],
        )
        for name in "AB"
        for i in range(6)
    ]  # fmt: skip


def test_each_latent_is_written_by_itself(llama, random_sae, rows):
    sae, readout = random_sae(), ReadoutConfig()
    pairs = encode_pairs(llama, sae, rows, CONFIG, readout)
    features = select_all(pairs, CONFIG)
    found = run_alone(llama, sae, pairs, features, 2, readout)
    assert set(found) == {(f.perspective, i) for f in features for i in f.latents[:2].tolist()}
    one = features[1]
    vector = one.value[0] * sae.W_dec[one.latents[0]]
    direction = Direction("alone", sae.cfg.metadata.hook_name, AddVector(vector))
    items = list({row.item: row.as_item() for row in rows}.values())
    scores = read_options(llama, items, [direction], readout)
    log_probs = {i.id: s.log_probs() for i, s in zip(items, scores, strict=True)}
    gains = []
    for row in rows:
        if row.perspective == "B":
            base, written = log_probs[row.item][:, row.options.index(row.answer)].tolist()
            gains.append(written - base)
    alone = found["B", int(one.latents[0])]
    assert alone.gain.estimate == pytest.approx(np.mean(gains), abs=1e-5)
    assert alone.gain.low <= alone.gain.estimate <= alone.gain.high
    moved = [0.5 * (p[1].exp() - p[0].exp()).abs().sum() for p in log_probs.values()]
    assert alone.moved == pytest.approx(float(torch.stack(moved).mean()), abs=1e-5)


def test_comments_without_options_ask_nothing(llama, random_sae):
    rows = [
        Feedback(id=f"{n}{i}", perspective=n, prompt=f"Q{i}?", options=(), comment=f"{n} says {i}")
        for n in "AB"
        for i in range(4)
    ]
    sae, readout = random_sae(), ReadoutConfig()
    pairs = encode_pairs(llama, sae, rows, CONFIG, readout)
    assert run_alone(llama, sae, pairs, select_all(pairs, CONFIG), 2, readout) == {}
