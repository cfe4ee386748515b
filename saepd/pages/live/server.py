"""The live page's server: Python's own, on this machine alone, with one page and seven answers.

The standard library does all that the page needs, a stream of lines and a few JSON answers. Gradio,
the framework that is usual for such pages, would bring some fifty packages and reports usage unless
told not to, and has no text whose tokens can be clicked while they arrive.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

from saepd.common.errors import InputError, first_line
from saepd.pages.live.session import LiveSession

HOST = "127.0.0.1"
_MOST_BYTES = 1_000_000


class LiveServer(ThreadingHTTPServer):
    """Serves a session until it is shut down.

    Only requests that name this machine, and that bring the secret of the page that was loaded
    from it, are answered: no other page in the same browser can ask anything.

    Args:
        session: What is asked.
        port: Port on the loopback interface; 0 takes a free one.

    Raises:
        InputError: the port is taken, or is none.
    """

    daemon_threads = True

    def __init__(self, session: LiveSession, port: int = 0) -> None:
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise InputError(
                f"port {port} cannot be used ({first_line(error)}): name another, or 0 for a free "
                "one"
            ) from error
        self.secret = secrets.token_urlsafe(24)
        self.nonce = secrets.token_urlsafe(16)
        self.session = session
        self.answers: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "/api/state": lambda _: session.state(),
            "/api/options": session.options,
            "/api/moved": session.moved,
            "/api/latent": session.latent,
            "/api/save": session.save,
            "/api/code": session.code,
        }

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_port}/"

    def page(self) -> bytes:
        """The page, with the secret that its questions must bring."""
        text = resources.files("saepd.pages.live").joinpath("page.html").read_text("utf-8")
        return text.replace("{{nonce}}", self.nonce).replace("{{secret}}", self.secret).encode()


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        if not self._is_from_here():
            self._send(403, {"error": f"this page is at {self.server.url}"})
        elif self.path == "/":
            policy = (
                f"default-src 'none'; script-src 'nonce-{self.server.nonce}'; "
                "style-src 'unsafe-inline'; connect-src 'self'; img-src data:"
            )
            self._head(200, "text/html; charset=utf-8", {"Content-Security-Policy": policy})
            self.wfile.write(self.server.page())
        else:
            self._send(404, {"error": f"there is nothing at {self.path[:60]}"})

    def do_POST(self) -> None:
        if not self._is_from_here() or not secrets.compare_digest(
            self.headers.get("X-Secret", ""), self.server.secret
        ):
            self._send(403, {"error": "load the page again: this is not from it"})
            return
        try:
            asked = self._body()
            if self.path == "/api/write":
                self._stream(self.server.session.write(asked))
            elif self.path in self.server.answers:
                self._send(200, self.server.answers[self.path](asked))
            else:
                self._send(404, {"error": f"there is nothing at {self.path[:60]}"})
        except InputError as error:
            # An answer like any other: browsers would log another status as a fault of the page.
            self._send(200, {"error": str(error)})

    def _is_from_here(self) -> bool:
        """Whether the request names this machine: a name that others resolve to it does not."""
        port = self.server.server_port
        return self.headers.get("Host") in (f"{HOST}:{port}", f"localhost:{port}")

    def _body(self) -> dict[str, Any]:
        try:
            length = int(self.headers.get("Content-Length", ""))
            if not 0 <= length <= _MOST_BYTES:
                raise InputError(f"a question may have {_MOST_BYTES} bytes: ask for less")
            asked = json.loads(self.rfile.read(length))
        except (ValueError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"this is no JSON: {first_line(error)}") from error
        if not isinstance(asked, dict):
            raise InputError("this is no JSON object")
        return asked

    def _stream(self, lines: Iterator[dict[str, Any]]) -> None:
        self._head(200, "application/x-ndjson; charset=utf-8", {})
        try:
            for line in lines:
                self.wfile.write(json.dumps(line).encode() + b"\n")
        except InputError as error:
            self.wfile.write(json.dumps({"error": str(error)}).encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            # The reader has gone, so nobody needs the rest.
            return

    def _send(self, status: int, answer: Mapping[str, Any]) -> None:
        self._head(status, "application/json; charset=utf-8", {})
        self.wfile.write(json.dumps(answer).encode())

    def _head(self, status: int, kind: str, more: Mapping[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in more.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal belongs to the command."""
