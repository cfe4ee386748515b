import re

import pytest

from saepd.evaluation.methods.registry import METHODS

TEXT = [n for n, m in METHODS.items() if not m.for_labels and "letters" not in n]


@pytest.mark.parametrize("name", TEXT)
def test_every_method_answers_exactly_what_is_asked(opinion_fold, name):
    found = METHODS[name].predict(opinion_fold)
    assert set(found) == set(opinion_fold.asked)
    for (item, _), p in found.items():
        assert p.shape == (len(opinion_fold.task.by_id[item].options),)
        assert (p >= 0).all()
        assert p.sum() == pytest.approx(1)


def test_ids_are_words_for_a_command_line_and_a_file_name():
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", id_) for id_ in METHODS)
    assert len({method.title for method in METHODS.values()}) == len(METHODS)
    assert all("\n" not in m.description and m.description for m in METHODS.values())
