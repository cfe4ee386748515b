import pytest
from tiny import tiny_tokenizer

from saepd.common.errors import InputError
from saepd.models.chat import chat

MESSAGES = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"


def with_template(template):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def test_chat_ends_where_the_model_begins():
    tokenizer = tiny_tokenizer()
    assert chat(tokenizer, "So?") == "<|start|>user\nSo?<|end|>\n<|start|>assistant\n"
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="this model has no chat template: use style='plain'"):
        chat(tokenizer, "So?")


THINKING = {
    "a tag": MESSAGES + "<|assistant|><think>\n",
    "a bracket": MESSAGES + "[THINK]",
    "a special token": MESSAGES + "<|START_OF_TURN_TOKEN|><|START_THINKING|>",
    "a scratchpad": MESSAGES + "<|assistant|><scratchpad>",
    "another word": MESSAGES + "[THINKING]\n",
    "a channel": MESSAGES + "<|start|>assistant<|channel|>analysis<|message|>",
}


@pytest.mark.parametrize("what", THINKING)
def test_options_are_never_read_within_thoughts(what):
    with pytest.raises(InputError, match=r"opens a block for thinking .*: use style='plain'"):
        chat(with_template(THINKING[what]), "So?")


def test_a_channel_that_the_model_has_still_to_open_is_no_place_for_an_answer():
    asked = "{% if thoughts %}<|channel|>analysis{% endif %}" + MESSAGES + "<|start|>assistant"
    with pytest.raises(InputError, match=r"leaves it to the model to open a channel"):
        chat(with_template(asked), "So?")
    opened = asked + "<|channel|>final<|message|>"
    assert chat(with_template(opened), "So?").endswith("<|channel|>final<|message|>")


@pytest.mark.parametrize("switch", ["enable_thinking", "thinking"])
def test_thinking_is_turned_off_where_it_can_be(switch):
    template = f"{MESSAGES}<think>{{% if not {switch} %}}</think>{{% endif %}}"
    assert chat(with_template(template), "So?") == "<|user|>So?<think></think>"


def test_thoughts_in_the_question_are_the_users():
    assert chat(with_template(MESSAGES), "Is <think> a word?") == "<|user|>Is <think> a word?"


def test_of_several_templates_the_default_is_used():
    named = {"tool_use": "tools", "default": MESSAGES}
    listed = [{"name": name, "template": template} for name, template in named.items()]
    for templates in (named, listed):
        assert chat(with_template(templates), "So?") == "<|user|>So?"
    with pytest.raises(InputError, match="chat templates only for rag, tool_use, and none called"):
        chat(with_template({"tool_use": "tools", "rag": "documents"}), "So?")


UNUSABLE = {
    "{{ raise_exception('a system message must come first') }}": r"\(a system message must come",
    "{% for m in %}": "cannot put a user's turn",
    "{{ messages[0]['content'][0]['picture']['url'] }}": "cannot put a user's turn",
    "<|user|>": "leaves the text out: use style='plain'",
}


@pytest.mark.parametrize("template", UNUSABLE)
def test_templates_that_cannot_be_used_are_refused(template):
    with pytest.raises(InputError, match=UNUSABLE[template]):
        chat(with_template(template), "So?")


def test_a_template_may_want_content_in_parts():
    template = (
        "{% for m in messages %}{% if m['content'] is not string %}"
        "{{ m['content'][0]['text'] }}{% endif %}{% endfor %}<|assistant|>"
    )
    assert chat(with_template(template), "So?") == "So?<|assistant|>"
