import pytest

from saepd.feedback.schema import Item
from saepd.feedback.survey import survey_items
from saepd.tasks.ordinal import natural_order, ordinal_items


@pytest.mark.parametrize(
    ("options", "order"),
    [
        ("Very likely|Somewhat likely|Not too likely|Not at all likely", (0, 1, 2, 3)),
        ("Never|Rarely|Sometimes|Often|Always", (0, 1, 2, 3, 4)),
        ("DK/Refused|A lot|Some|Only a little|None", (1, 2, 3, 4)),
        ("Major reason|Minor reason|Not a reason", (0, 1, 2)),
        ("Strongly approve|Approve|Disapprove|Strongly disapprove|Don't know", (0, 1, 2, 3)),
        (
            "Helps a lot|Helps a little|Hurts a little|Hurts a lot|Neither helps nor hurts",
            (0, 1, 4, 2, 3),
        ),
        ("Better|Worse|About the same (VOL)|DK/Refused", (0, 2, 1)),
        ("Too little|About right|Too much", (0, 1, 2)),
        ("Never|2|3|4|5|Always|No answer", (0, 1, 2, 3, 4, 5)),
        ("1|2|3|4|5", (0, 1, 2, 3, 4)),
    ],
)
def test_scales_are_told_by_their_words(options, order):
    assert natural_order(options.split("|")) == order


@pytest.mark.parametrize(
    "options",
    [
        "Yes|No",
        "Yes|No|Don't know",
        "Soup|Tea|Milk",
        "Good|Bad|Neither",
        "Men|Women|No difference",
        "Very good|Good|Very bad|Bad",
        "Very good|Somewhat good|Not good|Not at all good",
        "Approve|Disapprove|Depends (VOL)|Refused",
        "1|2|4|5|6",
        "Yes, likely|No, not likely|Some",
        "Most of the soups are rather too salty for me|Some soups are|No soups are too salty",
        "Better|Worse|About the same|No change",
    ],
)
def test_nothing_is_claimed_of_other_options(options):
    assert natural_order(options.split("|")) == ()


def test_free_text_and_the_survey():
    assert natural_order(()) == ()
    items = survey_items()
    spending = {item.id for item in items if item.topic == "spending"}
    assert set(ordinal_items([*items, Item(id="x", prompt="Why?", options=())])) == spending
