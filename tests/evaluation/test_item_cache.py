import numpy as np
import pytest
import torch
from safetensors.numpy import save

from saepd.branches.gradients import option_gradients
from saepd.branches.run import score_continuations
from saepd.common.errors import InputError
from saepd.evaluation import item_cache
from saepd.evaluation.item_cache import ItemCache
from saepd.models.tokens import prompt_ids
from saepd.readout.option_scores import OptionScores


@pytest.fixture
def cache(llama, sae, opinions, tmp_path):
    ids = [item.id for item in opinions.items]
    return ItemCache(llama, sae, opinions, ids, ids[:4], tmp_path)


def test_scores_and_gradients_are_those_of_the_tasks_wording(cache, llama, opinions):
    item = opinions.items[3]
    prompt = f"A survey asked: {item.prompt}\nMost people answered:"
    [(scores, _)] = score_continuations(llama, [prompt], [item.options], [])
    np.testing.assert_allclose(cache.text_scores[item.id], scores[0], atol=1e-4)
    [(_, gradients)] = option_gradients(llama, [prompt], [item.options], cache.hook_name)
    np.testing.assert_allclose(cache.gradients[item.id], gradients[0, :, 0], atol=1e-3)


class Fond:
    """Reads letters as somebody who likes A, and the option Less, by so many nats each."""

    def __init__(self, mass=0.5):
        self.asked, self.mass = [], mass

    def __call__(self, model, items, directions, config):
        assert (directions, config.readout) == ([], "letter")
        self.asked += items
        return [
            OptionScores(
                torch.tensor(
                    [[2.0 * (i == 0) + (o == "Less") for i, o in enumerate(item.options)]]
                ),
                torch.tensor([self.mass]),
                torch.ones(len(item.options), dtype=torch.long),
            )
            for item in items
        ]


def test_over_all_orders_a_liking_for_a_letter_is_gone(cache, opinions, monkeypatch):
    fond = Fond()
    monkeypatch.setattr(item_cache, "read_options", fond)
    item = opinions.items[1]
    assert item.options == ("More", "Less", "Same")
    once, orders = cache.letter_scores[item.id], cache.letter_scores_over_orders[item.id]
    np.testing.assert_allclose(once - once[2], [2, 1, 0], atol=1e-6)
    np.testing.assert_allclose(orders - orders[2], [0, 1, 0], atol=1e-6)
    assert {i.prompt for i in fond.asked} == {
        f"A survey asked: {i.prompt} What did people answer?" for i in opinions.items[:4]
    }
    lists = [i.options for i in fond.asked if i.prompt.find(item.prompt) > 0]
    assert lists == [item.options, item.options, ("Less", "Same", "More"), ("Same", "More", "Less")]


def test_letters_without_probability_are_no_answer(cache, opinions, monkeypatch):
    monkeypatch.setattr(item_cache, "read_options", Fond(mass=0.001))
    assert all(np.isnan(scores).all() for scores in cache.letter_scores.values())
    assert all(np.isnan(scores).all() for scores in cache.letter_scores_over_orders.values())


def test_pooled_features_are_means_over_a_prompt_alone(cache, llama, sae, opinions):
    for item in (opinions.items[0], opinions.items[11]):
        tokens = torch.tensor([prompt_ids(llama.tokenizer, cache.prompt(item))])
        special = set(llama.tokenizer.all_special_ids)
        keep = [i for i, t in enumerate(tokens[0].tolist()) if i > 0 and t not in special]
        _, held = llama.run_with_cache(tokens)
        h = held[cache.hook_name][0, keep]
        np.testing.assert_allclose(cache.residuals[item.id], h.mean(0), atol=1e-4)
        np.testing.assert_allclose(cache.latents[item.id], sae.encode(h).mean(0), atol=1e-4)


def test_what_was_computed_is_read_again_and_computed_once(cache, llama, sae, opinions, tmp_path):
    first = {name: dict(getattr(cache, name)) for name in ("text_scores", "residuals", "gradients")}
    ids = [item.id for item in opinions.items]
    # Without a model nothing can be computed anew.
    again = ItemCache(None, sae, opinions, ids, ids[:4], tmp_path)
    for name, values in first.items():
        found = getattr(again, name)
        assert list(found) == ids
        for id_ in ids:
            np.testing.assert_array_equal(found[id_], values[id_])
    kept = sorted(path.stem for path in tmp_path.iterdir())
    assert kept == ["gradients", "pooled", "text_scores"]


def test_a_damaged_file_is_named(llama, sae, opinions, tmp_path):
    ids = [item.id for item in opinions.items]
    path = tmp_path / "text_scores.safetensors"
    path.write_bytes(save({"values": np.ones(6), "ends": np.array([3, 6])}))
    for damage in (lambda: None, lambda: path.write_bytes(path.read_bytes()[:40])):
        damage()
        with pytest.raises(InputError, match=r"text_scores.safetensors is not what .*: delete it"):
            _ = ItemCache(llama, sae, opinions, ids, ids[:4], tmp_path).text_scores
