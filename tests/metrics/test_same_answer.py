import pytest
from hypothesis import given
from hypothesis import strategies as st

from saepd.common.errors import InputError
from saepd.metrics.same_answer import cluster_by_f1, token_f1


def test_token_f1_by_hand():
    assert token_f1("London", "London, UK") == pytest.approx(2 / 3)
    assert token_f1("London", "Paris") == 0
    assert token_f1("The harp", "a HARP!") == 1
    # Two of three tokens on each side, the repeated one counted once: 2 * 2 / (3 + 3).
    assert token_f1("no no yes", "no yes maybe") == pytest.approx(2 / 3)


def test_articles_and_punctuation_alone_are_still_texts():
    assert token_f1("The", "the") == 1
    assert token_f1("?!", "?!") == 1
    assert token_f1("The", "cat") == 0


@given(
    st.lists(st.sampled_from(["red", "blue", "the", "x"]), min_size=1, max_size=5),
    st.lists(st.sampled_from(["red", "blue", "the", "x"]), min_size=1, max_size=5),
    st.randoms(use_true_random=False),
)
def test_token_f1_is_symmetric_bounded_and_blind_to_word_order(a, b, random):
    found = token_f1(" ".join(a), " ".join(b))
    assert 0 <= found <= 1
    assert token_f1(" ".join(b), " ".join(a)) == found
    assert token_f1(" ".join(a), " ".join(a)) == 1
    assert token_f1(" ".join(random.sample(a, len(a))), " ".join(b)) == found


def test_clusters_of_the_papers_example():
    # Appendix on algorithm 3: the centres are London, Paris and Berlin.
    responses = ["London", "London", "London, UK", "Paris", "Berlin"]
    assert cluster_by_f1(responses) == [0, 0, 0, 3, 4]


def test_a_response_between_two_centres_joins_the_first():
    assert cluster_by_f1(["red", "blue", "red blue"]) == [0, 1, 0]
    assert cluster_by_f1(["red blue", "red", "blue"]) == [0, 0, 0]
    assert cluster_by_f1(["red", "red blue"], similarity=0.9) == [0, 1]
    # The threshold itself is a match.
    eight = "red " + " ".join("bcdefg")
    assert token_f1("red", eight) == 0.25
    assert cluster_by_f1(["red", eight]) == [0, 0]
    assert cluster_by_f1(["red blue", "blue red", "red"], similarity=1.0) == [0, 0, 2]


def test_what_matches_only_a_response_that_joined_another_is_a_cluster_of_its_own():
    assert cluster_by_f1(["red blue", "blue green", "green white"]) == [0, 0, 2]


def test_what_are_no_answers_and_no_similarity():
    with pytest.raises(InputError, match="a text to compare is empty"):
        token_f1("red", "")
    with pytest.raises(InputError, match=r"responses\[1\] is empty: an answer needs a word"):
        cluster_by_f1(["red", " "])
    for similarity in (0.0, 1.1):
        with pytest.raises(InputError, match="similarity"):
            cluster_by_f1(["red", "blue"], similarity=similarity)
