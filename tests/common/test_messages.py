from hypothesis import given
from hypothesis import strategies as st

from saepd.common.messages import closest, nearest, shortened


def test_nearest_name_ignores_case_and_comes_before_the_list():
    known = ["Mixture", "product", "weighted"]
    assert nearest("MIXTURR", known) == (
        "did you mean 'Mixture'? use one of Mixture, product, weighted"
    )
    assert closest("zzz", known) is None
    assert nearest("zzz", known, 2) == "use one of Mixture, product, ..."


@given(st.text())
def test_shortened_values_stay_on_one_short_line(text):
    assert len(shortened(text)) <= 60
    assert "\n" not in shortened(text)
    if len(repr(text)) <= 60:
        assert shortened(text) == repr(text)
