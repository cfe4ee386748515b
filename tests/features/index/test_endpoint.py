import threading

import pytest
from chat_server import cut, refusing, reply, serving

from saepd.common.errors import InputError
from saepd.features.index.endpoint import KEY, Endpoint, EndpointConfig

SECRET = "sk-of-nobody"


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Neither a key nor a proxy of who runs the tests."""
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def chat():
    with serving(lambda prompt: prompt[::-1]) as server:
        yield server


@pytest.fixture
def pauses():
    return []


@pytest.fixture
def ask(chat, pauses):
    return Endpoint(EndpointConfig(chat.url, "some-model"), pause=pauses.append)


def test_a_prompt_is_answered(ask, chat, pauses):
    assert ask("zebra") == "arbez"
    assert chat.requests == [
        {
            "model": "some-model",
            "messages": [{"role": "user", "content": "zebra"}],
            "temperature": 0,
            "seed": 0,
            "max_tokens": 256,
        }
    ]
    whole = EndpointConfig(f"{chat.url}/chat/completions", "some-model")
    assert Endpoint(whole)("x") == "x"
    assert pauses == []


def test_only_its_own_key_is_sent(ask, chat, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_hub")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another")
    ask("x")
    assert "Authorization" not in chat.headers[0]
    assert not any("_of_" in value or "-of-" in value for value in chat.headers[0].values())
    monkeypatch.setenv(KEY, f"{SECRET}\n")
    Endpoint(EndpointConfig(chat.url, "m"))("x")
    assert chat.headers[1]["Authorization"] == f"Bearer {SECRET}"
    monkeypatch.setenv(KEY, "two words")
    with pytest.raises(InputError, match=KEY) as caught:
        Endpoint(EndpointConfig(chat.url, "m"))
    assert "two words" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "said", "advice"),
    [
        (401, f"wrong key {SECRET}", f"set the environment variable {KEY}"),
        (403, "", KEY),
        (404, "no model some-model", "URL (it often ends in /v1) and model"),
        (400, "max_tokens\n\x1b[2Jis not known", "see what it says"),
    ],
)
def test_a_refusal_is_one_sentence_without_the_key(chat, monkeypatch, pauses, status, said, advice):
    monkeypatch.setenv(KEY, SECRET)
    ask = Endpoint(EndpointConfig(chat.url, "some-model"), pause=pauses.append)
    chat.faults = [refusing(status, said)]
    with pytest.raises(InputError) as caught:
        ask("x")
    sentence = str(caught.value)
    assert sentence.startswith(f"{chat.url}/chat/completions answers {status}")
    assert advice in sentence
    assert (said.split() or [""])[0] in sentence
    assert SECRET not in sentence
    assert sentence.isprintable()
    assert pauses == []
    assert len(chat.headers) == 1


def test_what_passes_is_asked_again_when_the_server_says(ask, chat, pauses):
    chat.faults = [refusing(429, Retry_After=3), refusing(503), cut, refusing(429, Retry_After=1e9)]
    assert ask("ab") == "ba"
    assert pauses == [3, 2, 4, 8]
    chat.faults = [refusing(429, Retry_After=10**9)]
    assert ask("ab") == "ba"
    assert pauses[4:] == [60]


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (refusing(429, "slow down"), "answers 429 ('slow down'): wait, or ask for fewer"),
        (refusing(502), "answers 502: run the same command later"),
        (cut, "gives no answer (Remote end closed connection"),
    ],
)
def test_no_request_is_sent_for_ever(ask, chat, pauses, fault, sentence):
    chat.faults = [fault] * 9
    with pytest.raises(InputError) as caught:
        ask("x")
    assert sentence in str(caught.value)
    assert len(chat.headers) == 5
    assert len(pauses) == 4


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"\xff", b'"x"', b'{"choices": []}', b"[" * 10**5, b"<html>",
             b'{"choices": [{"message": {"content": 3}}]}', b""]
)  # fmt: skip
def test_what_is_no_completion_is_said(ask, chat, body):
    chat.faults = [lambda handler: reply(handler, 200, body)]
    with pytest.raises(InputError, match="no chat completion"):
        ask("x")


def test_an_answer_of_nothing_is_empty_and_half_a_character_is_replaced(chat, ask):
    chat.answer = {"x": None, "y": "a\ud800b"}.get
    assert ask("x") == ""
    assert ask("y") == "a?b"


def test_no_redirect_is_followed(ask, chat):
    with serving() as elsewhere:
        for status in (302, 307):
            chat.faults = [refusing(status, Location=f"{elsewhere.url}/chat/completions")]
            with pytest.raises(InputError, match="a redirect"):
                ask("x")
        assert elsewhere.headers == []


def test_who_takes_too_long_or_does_not_run_is_said(chat):
    done = threading.Event()
    chat.faults = [lambda handler: (done.wait(10), cut(handler))]
    with pytest.raises(InputError, match=r"no answer within 0\.05 seconds"):
        Endpoint(EndpointConfig(chat.url, "m", timeout=0.05))("x")
    done.set()
    with serving() as gone:
        pass
    with pytest.raises(InputError, match=r"gives no answer .*refused"):
        Endpoint(EndpointConfig(gone.url, "m"))("x")


@pytest.mark.parametrize(
    "url",
    ["", "x", "127.0.0.1:8000", "ftp://a/v1", "http://", "http://a:b/v1", "http://a b/v1",
     "http://a/\n", "file:///etc/passwd", 3]
)  # fmt: skip
def test_what_is_no_url_is_refused(url):
    with pytest.raises(InputError, match="endpoint"):
        EndpointConfig(url, "m")


@pytest.mark.parametrize("end", ["u:SECRET@a/v1", "a/v1?key=SECRET", "a:b/v1#SECRET"])
def test_a_key_in_a_url_is_refused_and_not_shown(end):
    with pytest.raises(InputError, match=KEY) as caught:
        EndpointConfig(f"https://{end}", "m")
    assert "SECRET" not in str(caught.value)


def test_nothing_is_sent_unless_both_are_named():
    for config in (EndpointConfig(), EndpointConfig("http://127.0.0.1:1/v1")):
        with pytest.raises(InputError, match="nothing is sent unless"):
            Endpoint(config)
    for wrong in ({"timeout": 0}, {"max_tokens": 0}, {"endpoint_model": " "}):
        with pytest.raises(InputError):
            EndpointConfig("http://127.0.0.1:1/v1", **{"endpoint_model": "m", **wrong})
