"""A language model behind an OpenAI-compatible endpoint: one prompt in, one text out.

Python's own client, since the hub's would give an endpoint that needs no key the user's token of
the hub, follow redirects to other hosts, and refuse loopback where the hub is set offline.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from saepd.common.checks import check_number
from saepd.common.errors import InputError, first_line
from saepd.common.messages import shortened

KEY = "SAEPD_ENDPOINT_KEY"
_PAGE = "/chat/completions"
# What passes by itself, and so is asked again: too many requests, or a server that is busy.
_PASSING = (429, 500, 502, 503, 504, 529)
_N_TRIES = 5
# Seconds before the second try, twice as many before each further one; at most what a server asks.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_MOST_BYTES = 10**6
_LONGEST_MESSAGE = 300


@dataclass(frozen=True)
class EndpointConfig:
    """The language model that is asked.

    Attributes:
        endpoint: URL of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1; nothing is
            sent unless it is given. A key is read from SAEPD_ENDPOINT_KEY alone.
        endpoint_model: Name that the model has there.
        timeout: Seconds that the server may be silent before it is given up.
        max_tokens: The most tokens of one answer; a model that reasons first needs thousands.
    """

    endpoint: str | None = None
    endpoint_model: str | None = None
    timeout: float = 120.0
    max_tokens: int = 256

    def __post_init__(self) -> None:
        check_number("timeout", self.timeout, above=0)
        check_number("max_tokens", self.max_tokens, at_least=1, whole=True)
        for name, value in (("endpoint", self.endpoint), ("endpoint_model", self.endpoint_model)):
            named = isinstance(value, str) and value.strip() and value.isprintable()
            if value is not None and not named:
                raise InputError(f"{name} is {shortened(value)}: give its name, in one line")
        if self.endpoint is not None:
            _check_url(self.endpoint)

    def request(self, prompt: str) -> dict[str, Any]:
        """What is sent for one prompt, as JSON values."""
        return {
            "model": self.endpoint_model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "seed": 0,
            "max_tokens": self.max_tokens,
        }


def _check_url(url: str) -> None:
    # A key may be in these: they are not shown.
    if any(sign in url for sign in "@?#"):
        raise InputError(
            "the endpoint's URL holds a user, a query or a fragment: give it without, and a key in "
            f"the environment variable {KEY}"
        )
    try:
        parts = urlsplit(url)
        # Reading the port checks it.
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not _is_one_word(url):
        raise InputError(
            f"the endpoint {shortened(url)} is no URL of a server: give one such as "
            "http://127.0.0.1:8000/v1"
        )


def _is_one_word(text: str) -> bool:
    """Whether text can stand in a URL or a header as it is."""
    return text.isascii() and text.isprintable() and " " not in text


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **named: Any) -> None:
        """Follow none: neither texts nor the key go where nobody said they should."""


class Endpoint:
    """Asks the language model; call it with a prompt.

    Args:
        config: Which server and model, both named.
        pause: Waits so many seconds before a request is sent again.

    Raises:
        InputError: no endpoint or no model is named, or a key that no header can hold.
    """

    def __init__(
        self, config: EndpointConfig, *, pause: Callable[[float], None] = time.sleep
    ) -> None:
        if config.endpoint is None or config.endpoint_model is None:
            raise InputError(
                "nothing is sent unless the endpoint and its model are named: give both (on the "
                "command line, --endpoint and --endpoint-model)"
            )
        self.config, self._pause = config, pause
        self._key = os.environ.get(KEY, "").strip()
        if not _is_one_word(self._key):
            raise InputError(f"{KEY} holds what no key has, such as a blank: set it to the key")
        page = config.endpoint.rstrip("/")
        self.url = page if page.endswith(_PAGE) else page + _PAGE
        self._open = build_opener(_NoRedirect()).open

    def __call__(self, prompt: str) -> str:
        """The model's answer; empty where it gave none.

        Raises:
            InputError: nobody answers there, it refuses, takes too long, or answers with what is
                no chat completion.
        """
        headers = {"Content-Type": "application/json", "User-Agent": "saepd"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        body = json.dumps(self.config.request(prompt)).encode()
        request = Request(self.url, body, headers)
        n_tried, pause = 0, _FIRST_PAUSE
        while True:
            n_tried += 1
            try:
                with self._open(request, timeout=self.config.timeout) as response:
                    return self._content(response.read(_MOST_BYTES))
            except HTTPError as error:
                with error:
                    if error.code not in _PASSING or n_tried == _N_TRIES:
                        raise self._refused(error) from None
                    wait = _seconds(error.headers.get("Retry-After"), pause)
            except (HTTPException, OSError) as error:
                reason = error.reason if isinstance(error, URLError) else error
                cut = isinstance(reason, HTTPException | ConnectionError)
                if not cut or isinstance(reason, ConnectionRefusedError) or n_tried == _N_TRIES:
                    raise self._unanswered(reason) from None
                wait = pause
            self._pause(wait)
            pause *= 2

    def _content(self, payload: bytes) -> str:
        try:
            content = json.loads(payload)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            content = payload
        if not isinstance(content, str | None):
            raise InputError(
                f"{self.url} answers with what is no chat completion: name the URL of an "
                "OpenAI-compatible server, which often ends in /v1"
            )
        # Half a surrogate pair can stand in JSON, and in no file.
        return (content or "").encode("utf-8", "replace").decode()

    def _refused(self, error: HTTPError) -> InputError:
        advice = {
            401: f"set the environment variable {KEY} to a key that it takes",
            403: f"set the environment variable {KEY} to a key that may use this model",
            404: "see whether URL (it often ends in /v1) and model are those that it has",
            429: "wait, or ask for fewer latents; the same command goes on",
        }
        said = self._message(error)
        if 300 <= error.code < 400:
            said, advice[error.code] = " (a redirect)", "name the URL that it leads to"
        what = "see what it says" if error.code < 500 else "run the same command later"
        return InputError(f"{self.url} answers {error.code}{said}: {advice.get(error.code, what)}")

    def _message(self, error: HTTPError) -> str:
        """The server's own words, in brackets; none where it has none that can be read."""
        try:
            said = json.loads(error.read(_MOST_BYTES))
            said = said.get("error", said)
            text = str(said.get("message", "") if isinstance(said, dict) else said)
        except (ValueError, AttributeError, RecursionError, HTTPException, OSError):
            return ""
        if self._key:
            text = text.replace(self._key, "...")
        return f" ({' '.join(text.split())[:_LONGEST_MESSAGE]!a})" if text.strip() else ""

    def _unanswered(self, reason: object) -> InputError:
        if isinstance(reason, TimeoutError):
            return InputError(
                f"{self.url} gave no answer within {self.config.timeout:g} seconds: allow it more "
                "(on the command line, --timeout)"
            )
        why = first_line(reason) if isinstance(reason, BaseException) else str(reason)
        return InputError(f"{self.url} gives no answer ({why}): see whether the server runs")


def _seconds(asked: str | None, otherwise: float) -> float:
    """How long a server asks to be left alone, where it says so in seconds."""
    if asked is None or not (asked.isascii() and asked.isdigit()):
        return otherwise
    return min(_LONGEST_PAUSE, float(asked[:9]))
