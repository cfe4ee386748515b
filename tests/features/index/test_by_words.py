import numpy as np
import pytest

from saepd.common.errors import InputError
from saepd.features.index.by_words import by_words, field_weights, stem, words_of


def test_plurals_are_one_word():
    assert [stem(w) for w in ("taxes", "tax", "policies", "bus", "class", "trees")] == [
        "taxe", "tax", "policy", "bus", "class", "tree",
    ]  # fmt: skip


def test_words_of_a_text():
    assert words_of("It's a BUS, for 3!") == ["it's", "a", "bus", "for", "3"]


def test_a_word_is_found_where_it_is(index):
    found = by_words(index, "the trees")
    assert set(found) == set(field_weights(index))
    assert sum(field_weights(index).values()) == pytest.approx(1)
    # "the" is left out beside a word that says more.
    assert np.array_equal(found["contexts"], by_words(index, "tree")["contexts"])
    has = [any("trees" in c.text for c in index.contexts(i)) for i in range(index.d_sae)]
    shown = found["contexts"] > 0
    assert (shown <= np.array(has)).all()
    assert shown.any()
    assert float(found["contexts"].max()) <= 1 + 1e-9


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("", "holds no words"),
        ("  !? ", "holds no words"),
        ("\U0001f600\U0001f68c", "holds no words"),
        ("שלום", "no label, context or token"),
        ("a" * 10_000, "10000 characters long"),
    ],
)
def test_queries_of_nothing_are_refused_in_a_sentence(index, query, sentence):
    with pytest.raises(InputError, match=sentence):
        by_words(index, query)
