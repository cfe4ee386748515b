from saepd.models.wording import rendered


def test_only_named_slots_are_filled_and_only_once():
    template = "{prompt} by {who}, {0} {} {other} {{prompt}}"
    filled = rendered(template, prompt="Is {who} in {braces}?", who="{prompt}")
    assert filled == ("Is {who} in {braces}? by {prompt}, {0} {} {other} {Is {who} in {braces}?}")
