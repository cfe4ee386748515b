import json
import math

import numpy as np
import pytest
import torch
from tiny import D_MODEL

from saepd.features.config import FeatureConfig
from saepd.features.encode import encode_pairs
from saepd.features.index.build import build_index
from saepd.features.table import feature_table
from saepd.feedback.schema import Feedback
from saepd.models.wording import ReadoutConfig
from saepd.pages.figures import activations_figure, intervals_figure

CONFIG = FeatureConfig(k=4, n_bootstrap=20, min_stability=0.3, max_density=1)
TOPICS = ("bus", "sea", "oak", "sun", "cat")
PLANTED = 5


@pytest.fixture(scope="module")
def rows():
    """A and B say the same of everything but the first topic, which half of the rows are about."""
    rng = np.random.default_rng(0)
    found = []
    for name in "AB":
        for i in range(40):
            topic = TOPICS[max(0, i % 8 - 3)]
            answer = ("Yes", "No")[int(rng.random() < 0.5)]
            if topic == "bus":
                answer = "Zebra" if name == "A" else answer
            found.append(
                Feedback(
                    id=f"{name}{i}", perspective=name, prompt=f"The {topic}?", item=topic,
                    options=("Yes", "No", "Zebra"), answer=answer,
                )
            )  # fmt: skip
    return found


@pytest.fixture(scope="module")
def planted_sae(llama, random_sae, rows):
    """A random SAE in which one latent is made to fire on what A says of the first topic."""
    sae, readout = random_sae(d_in=D_MODEL), ReadoutConfig()
    config = FeatureConfig(k=0, contrast="anchor")
    pairs = encode_pairs(llama, sae, rows, config, readout)
    texts = dict(zip(pairs.positive_texts, _ends(llama, sae, pairs), strict=True))
    fires = torch.tensor([1.0 if "Zebra" in t else 0.0 for t in texts])
    x = torch.stack(list(texts.values())).float()
    x = torch.cat([x, torch.ones(len(x), 1)], 1)
    weights = torch.linalg.lstsq(x, fires[:, None], driver="gelsd").solution[:, 0]
    with torch.no_grad():
        sae.W_enc[:, PLANTED] = 10 * weights[:-1]
        before = sae.b_dec if sae.cfg.apply_b_dec_to_input else torch.zeros_like(sae.b_dec)
        sae.b_enc[PLANTED] = 10 * weights[-1] + 10 * before @ weights[:-1] - 2
    return sae


def _ends(model, sae, pairs):
    from saepd.models.sites import read_site
    from saepd.models.tokens import prompt_ids
    from saepd.saes.load import sae_hook_name

    name = sae_hook_name(sae)
    ids = [prompt_ids(model.tokenizer, text) for text in pairs.positive_texts]
    return read_site(model, [name], ids, lambda batch: list(batch.held[name][:, -1].clone()))


@pytest.fixture(scope="module")
def table(llama, planted_sae, rows, tmp_path_factory):
    index = build_index(
        llama, planted_sae, ["the bus and the sea", "Zebra, zebra!"],
        tmp_path_factory.mktemp("index") / "x",
    )  # fmt: skip
    return feature_table(llama, planted_sae, rows, CONFIG, index=index, top=3)


def test_the_planted_latent_comes_first_and_is_surely_its_own(table):
    first = table.of("A")[0]
    assert first.latent == PLANTED
    assert first.false_sign_rate < 0.05
    assert "Zebra" in first.contexts[0].text
    assert first.contexts[0].perspectives == ("A",)
    assert first.against[0].activation < 0.1 * first.contexts[0].activation
    # What speaks against it are other answers to the same question.
    assert first.against[0].text.startswith(first.contexts[0].text.partition("?")[0])
    assert table.sentence.startswith(f"Latent {PLANTED} (")
    assert "tells the feedback of A best" in table.sentence


def test_shuffled_feedback_makes_nothing_sure(llama, planted_sae, rows):
    order = np.random.default_rng(3).permutation(len(rows))
    shuffled = [
        row.model_copy(update={"perspective": rows[i].perspective})
        for row, i in zip(rows, order.tolist(), strict=True)
    ]
    table = feature_table(llama, planted_sae, shuffled, CONFIG, top=2)
    assert all(one.n_sure == 0 for one in table.sureness)
    assert table.sentence.startswith("No latent tells")


def test_a_row_has_what_speaks_for_it(table):
    for row in table.rows:
        assert row.label
        assert {c.kind for c in row.index_contexts} <= {"top", "weakest"}
        assert row.gain.low <= row.gain.estimate <= row.gain.high
        assert row.alone.moved >= 0
        for name, effect in row.effect.items():
            low, high = row.interval[name]
            assert low <= effect <= high or math.isclose(low, high)
    both = [r.latent for r in table.of("A") if "B" in r.shared]
    assert set(both) <= set(table.features[1].latents.tolist())


def test_the_table_is_json_a_frame_and_html(table):
    told = json.loads(json.dumps(table.to_dict(), allow_nan=False))
    assert told["sentence"] == table.sentence
    assert [f["latent"] for f in told["features"]] == [r.latent for r in table.rows]
    assert told["features"][0]["false_sign_rate"] == table.rows[0].false_sign_rate
    frame = table.frame()
    assert frame.latent.tolist() == [r.latent for r in table.rows]
    assert {"effect/A", "effect_low/B", "gain", "answer_gain_high", "against"} <= set(frame)
    assert str(table.rows[0].latent) in table._repr_html_()
    assert repr(table) == f"FeatureTable({table.sentence})"


def test_effects_are_drawn_with_their_intervals(table):
    figure = intervals_figure(table)
    rows = list({row.latent: row for row in table.rows}.values())
    assert [drawn.name for drawn in figure.data] == ["A", "B"]
    for drawn in figure.data:
        assert list(drawn.x) == [row.effect[drawn.name] for row in rows]
        highs = [x + up for x, up in zip(drawn.x, drawn.error_x.array, strict=True)]
        assert highs == pytest.approx([row.interval[drawn.name][1] for row in rows])
    assert figure.layout.yaxis.ticktext[0].startswith(f"{PLANTED}: ")
    pairs = table.pairs
    assert list(pairs.perspectives) == ["A", "B"]
    [_, drawn] = activations_figure(pairs, PLANTED, "A").data
    assert max(drawn.x) < 0.1 * table.rows[0].contexts[0].activation


@pytest.mark.slow
def test_a_topic_that_two_groups_part_on_is_found_among_the_shipped_latents():
    from saepd.features.index.reading import load_index
    from saepd.models.load import load_model
    from saepd.saes.load import load_sae

    model = load_model()
    sae = load_sae(15, model=model)
    rng = np.random.default_rng(0)
    questions = {
        "How should people get to work?": ("Take the bus", "Drive a car"),
        "What should schools teach?": ("More music", "More maths"),
        "What do you eat for breakfast?": ("Bread", "Fruit"),
        "What should the park have?": ("More trees", "More benches"),
    }
    rows = []
    for name in "AB":
        for i in range(48):
            prompt = list(questions)[0 if i % 2 == 0 else 1 + i // 2 % 3]
            options = questions[prompt]
            chosen = int(name == "B") if "work" in prompt else int(rng.random() < 0.5)
            rows.append(
                Feedback(
                    id=f"{name}{i}", perspective=name, prompt=prompt, item=prompt,
                    options=options, answer=options[chosen],
                )
            )  # fmt: skip
    table = feature_table(model, sae, rows, index=load_index(None, sae), top=3)
    first = table.of("A")[0]
    assert first.score > 0
    assert first.false_sign_rate < 0.05
    assert "bus" in first.label
    assert all(one.shuffles_with_any <= 1 for one in table.sureness)
