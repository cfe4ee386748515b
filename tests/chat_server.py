"""A language model behind an endpoint on loopback, which answers by a rule and can go wrong."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def by_letters(prompt: str) -> str:
    """Labels a latent with the letter that is marked most, and finds excerpts that have it."""
    listed = re.findall(r"^\d+\. (.*)$", prompt, re.M)
    if "Label: " in prompt:
        [letter] = re.findall(r"^Label: the letter (.)$", prompt, re.M)
        return ", ".join(str(i) for i, text in enumerate(listed, 1) if letter in text) or "none"
    marks = Counter(mark for text in listed for mark in re.findall(r"<<(.+?)>>", text))
    return f"the letter {marks.most_common(1)[0][0]}"


class ChatServer:
    """What was asked, and what comes back.

    Attributes:
        answer: Gives the answer to a prompt.
        faults: Called in turn with the handler instead of answering; None answers.
        requests: Bodies of the requests that were answered, as JSON values.
        headers: Headers of all requests.
    """

    def __init__(self, url: str, answer: Callable[[str], Any]) -> None:
        self.url, self.answer = url, answer
        self.faults: list[Callable[[Any], None] | None] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

    @property
    def prompts(self) -> list[str]:
        """The prompts that were answered."""
        return [request["messages"][0]["content"] for request in self.requests]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments):
        pass

    def do_POST(self):
        chat = self.server.chat
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        chat.headers.append(dict(self.headers))
        fault = chat.faults.pop(0) if chat.faults else None
        if self.path != "/v1/chat/completions":
            fault = refusing(404, "no such page")
        if fault is not None:
            fault(self)
            return
        chat.requests.append(body)
        content = chat.answer(body["messages"][0]["content"])
        message = {"role": "assistant", "content": content}
        reply(self, 200, {"choices": [{"index": 0, "message": message}]})


def reply(handler, status, value, **headers):
    """Send JSON, or bytes as they are."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    handler.send_response(status)
    for name, said in {"Content-Length": len(body), **headers}.items():
        handler.send_header(name.replace("_", "-"), str(said))
    handler.end_headers()
    handler.wfile.write(body)


def refusing(status, message="", **headers):
    """A fault: an error in the form that these endpoints have."""
    return lambda handler: reply(handler, status, {"error": {"message": message}}, **headers)


def cut(handler):
    """A fault: the connection ends before anything is said."""
    handler.close_connection = True
    handler.connection.close()


@contextmanager
def serving(answer=by_letters):
    """A server as long as the context lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.chat = ChatServer(f"http://127.0.0.1:{server.server_port}/v1", answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.chat
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
