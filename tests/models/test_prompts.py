import pytest

from saepd.common.errors import InputError
from saepd.models.prompts import item_prompt, letters
from saepd.models.wording import ReadoutConfig


def test_letters_go_from_a_to_z():
    assert letters(3) == ["A", "B", "C"]
    assert "".join(letters(26)) == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    with pytest.raises(InputError, match="27 options have no letters"):
        letters(27)


def test_how_each_readout_asks(llama):
    options = ("Yes", "No")
    asked = {
        (readout, style): item_prompt(llama, "So?", options, ReadoutConfig(readout, style))
        for readout in ("text", "letter")
        for style in ("plain", "chat")
    }
    assert asked["text", "plain"] == "A survey asked: So?\nMost people answered:"
    assert asked["letter", "plain"] == "Question: So?\nA. Yes\nB. No\nAnswer:"
    for (readout, style), prompt in asked.items():
        assert "So?" in prompt
        assert prompt.endswith("<|start|>assistant\n") == (style == "chat")
        assert ("Yes" in prompt) == (readout == "letter")
    assert "So?\nA. Yes\nB. No\n" in asked["letter", "chat"]
