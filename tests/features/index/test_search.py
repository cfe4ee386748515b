import pytest

from saepd.common.errors import InputError
from saepd.features.index.search import search


def test_words_find_labels_and_contexts(index):
    found = search("trees", index, n=3)
    assert 0 < len(found) <= 3
    assert [f.score for f in found] == sorted((f.score for f in found), reverse=True)
    assert all(f.found_in in ("label", "contexts", "tokens") for f in found)
    assert search("trees", index.folder, n=3) == found


def test_texts_find_what_fires_there_and_not_in_those_against(llama, tiny_topk, index):
    asked = {"model": llama, "sae": tiny_topk, "n": 48}
    found = search(None, index, texts="A bus! Zebra", **asked)
    assert found
    assert found[0].context.text
    against = search(None, index, texts=["A bus! Zebra"], against=["A bus! Zebra"], **asked)
    assert against == []


@pytest.mark.parametrize(
    ("query", "asked", "sentence"),
    [
        (None, {}, "either by words or by texts"),
        ("bus", {"texts": ["bus"]}, "either by words or by texts"),
        ("bus", {"against": ["bus"]}, "need texts for"),
        (None, {"texts": ["bus"]}, "the model and the SAE"),
        (None, {"texts": [" "]}, "empty or no text"),
        ("bus", {"n": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_looked_up_is_said(index, query, asked, sentence):
    with pytest.raises(InputError, match=sentence):
        search(query, index, **asked)


def test_a_text_beyond_the_context_is_refused(llama, tiny_topk, index):
    with pytest.raises(InputError, match="model's context"):
        search(None, index, texts=["x" * 10_000], model=llama, sae=tiny_topk)
