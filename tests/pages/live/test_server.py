import http.client
import json
import re
import threading

import pytest
import torch
from tiny import SITE

from saepd.common.errors import InputError
from saepd.directions.direction import Direction
from saepd.directions.edits import AddVector
from saepd.pages.live.server import LiveServer
from saepd.pages.live.session import LiveSession

ASKED = {"prompt": "So?", "options": ["Yes", "No"], "strengths": {"d": 1.0}, "max_new_tokens": 5}


@pytest.fixture
def server(llama):
    session = LiveSession(llama, [Direction("d", SITE, AddVector(torch.ones(32)))])
    with LiveServer(session) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def request(server, method, path, body=None, **headers):
    """Status, headers and text of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, dict(answer.getheaders()), text


def post(server, path, asked, **headers):
    body = asked if isinstance(asked, str) else json.dumps(asked)
    status, _, text = request(server, "POST", path, body, **{"X-Secret": server.secret, **headers})
    return status, text


def test_the_page_runs_its_own_script_only_and_loads_nothing(server):
    status, headers, page = request(server, "GET", "/")
    assert status == 200
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    [nonce] = re.findall(r"nonce-([\w-]+)", policy)
    assert f'<script nonce="{nonce}">' in page
    assert page.count("<script") == 1
    assert f'"{server.secret}"' in page
    assert not re.findall(r"https?://|src=|@import|innerHTML|eval\(", page)


def test_it_answers_what_the_session_says(server):
    status, text = post(server, "/api/state", {})
    assert (status, json.loads(text)["names"]) == (200, ["d"])
    found = json.loads(post(server, "/api/options", ASKED)[1])
    assert found == server.session.options(ASKED)
    lines = [json.loads(line) for line in post(server, "/api/write", ASKED)[1].splitlines()]
    assert lines == json.loads(json.dumps(list(server.session.write(ASKED))))


def test_what_is_wrong_is_one_sentence(server):
    for path in ("/api/options", "/api/write"):
        _, text = post(server, path, {**ASKED, "prompt": ""})
        assert json.loads(text) == {"error": "the prompt is empty: write some text"}
    _, text = post(server, "/api/options", "{")
    assert json.loads(text)["error"].startswith("this is no JSON")
    assert json.loads(post(server, "/api/options", "[1]")[1]) == {"error": "this is no JSON object"}
    _, text = post(server, "/api/write", {**ASKED, "prompt": "x" * 10_000})
    assert "shorten it" in json.loads(text)["error"]


def test_a_slider_may_move_while_texts_are_written(server):
    expected = json.loads(json.dumps(list(server.session.write({**ASKED, "max_new_tokens": 12}))))
    written = []

    def write():
        text = post(server, "/api/write", {**ASKED, "max_new_tokens": 12})[1]
        written.extend(json.loads(line) for line in text.splitlines())

    thread = threading.Thread(target=write)
    thread.start()
    bars = []
    for strength in (0.5, 1.5, 2.5, 3.5):
        asked = {**ASKED, "strengths": {"d": strength}}
        bars.append((asked, json.loads(post(server, "/api/options", asked)[1])))
    thread.join()
    assert written == expected
    other = LiveSession(server.session.model, server.session.directions)
    for asked, found in bars:
        assert found["branches"]["d"] == pytest.approx(other.options(asked)["branches"]["d"])


def test_strangers_are_not_answered(server):
    assert post(server, "/api/state", {}, **{"X-Secret": "guess"})[0] == 403
    # A name that somebody made to lead here, so that their page may ask.
    assert post(server, "/api/state", {}, Host="evil.example")[0] == 403
    status, _, text = request(server, "GET", "/", Host="evil.example")
    assert status == 403
    assert server.secret not in text
    assert post(server, "/api/nothing", {})[0] == 404
    assert request(server, "GET", "/../../etc/passwd")[0] == 404
    assert server.server_address[0] == "127.0.0.1"


def test_too_much_is_not_read(server):
    status, text = post(server, "/api/state", "{}", **{"Content-Length": str(10**9)})
    assert status == 200
    assert "ask for less" in json.loads(text)["error"]


def test_a_port_that_is_taken_is_told(server):
    with pytest.raises(InputError, match=r"port \d+ cannot be used .*: name another"):
        LiveServer(server.session, server.server_port)
    with pytest.raises(InputError, match="port 99999 cannot be used"):
        LiveServer(server.session, 99999)
