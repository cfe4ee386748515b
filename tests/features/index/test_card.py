from saepd.features.index.card import CARD, index_card


def test_the_card_says_what_is_in_the_index(index):
    card = (index.folder / CARD).read_text()
    assert card.startswith("# Index of 48 latents at blocks.1.hook_resid_post of ")
    assert f"{index.info['n_counted']} count" in card
    assert "Nobody said where the texts come from." in card
    scores = index.array("label_scores")
    assert f"Labels of {(scores == scores).sum()} latents" in card


def test_a_card_without_scores_says_so(index):
    arrays = {name: index.array(name) for name in ("label_scores", "n_firings")}
    arrays["label_scores"] = arrays["label_scores"] * float("nan")
    assert "No label could be scored." in index_card({**index.info, "about": "mine"}, arrays)
