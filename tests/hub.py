"""A hub on loopback: the paths by which huggingface_hub looks for files and fetches them."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Hub:
    """Repositories as folders: ``folder/owner/name/revision/files``.

    Attributes:
        requests: Paths that were asked for.
        cuts: Files whose transfer breaks off in the middle, by repository and name, and how often
            it still does.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[str] = []
        self.cuts: dict[str, int] = {}

    def files(self, repo: str, revision: str) -> dict[str, Path] | None:
        """Files of a repository at a revision, or None where there is no such thing."""
        for found in (self.folder / repo).glob("*"):
            if revision in (found.name, commit(repo, found.name)):
                return {p.relative_to(found).as_posix(): p for p in found.rglob("*") if p.is_file()}
        return None


def commit(repo: str, revision: str) -> str:
    """The commit that a revision is."""
    return hashlib.sha1(f"{repo}@{revision}".encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def log_message(self, *_arguments):
        pass

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, *, with_body):
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.requests.append(f"{self.command} {path}")
        parts = path.split("/")
        if not path:
            return self.send(200, b"", {}, with_body)
        if parts[:2] == ["api", "models"] and len(parts) >= 4:
            return self.listing("/".join(parts[2:4]), parts[4:], with_body)
        if len(parts) >= 5 and parts[2] == "resolve":
            return self.file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), with_body)
        return self.refuse("EntryNotFound", with_body)

    def listing(self, repo, rest, with_body):
        revision = rest[1] if len(rest) > 1 and rest[0] in ("revision", "tree") else "main"
        files = self.hub.files(repo, revision)
        if files is None:
            return self.missing(repo, with_body)
        if rest[:1] == ["tree"]:
            below = "/".join(rest[2:])
            found = [
                {"type": "file", "path": name, "size": path.stat().st_size, "oid": etag(path)}
                for name, path in sorted(files.items())
                if name.startswith(f"{below}/" if below else "")
            ]
            if below and not found:
                return self.refuse("EntryNotFound", with_body)
            return self.send(200, json.dumps(found).encode(), {}, with_body)
        about = {
            "id": repo,
            "sha": commit(repo, revision),
            "siblings": [{"rfilename": name} for name in sorted(files)],
        }
        return self.send(200, json.dumps(about).encode(), {}, with_body)

    def file(self, repo, revision, name, with_body):
        files = self.hub.files(repo, revision)
        if files is None:
            return self.missing(repo, with_body)
        if name not in files:
            return self.refuse("EntryNotFound", with_body)
        payload = files[name].read_bytes()
        known = next(
            (
                r.name
                for r in (self.hub.folder / repo).glob("*")
                if commit(repo, r.name) == revision
            ),
            revision,
        )
        headers = {
            "X-Repo-Commit": commit(repo, known),
            "ETag": f'"{etag(files[name])}"',
            "Accept-Ranges": "bytes",
        }
        status, start = 200, 0
        if with_body and (asked := self.headers.get("Range")):
            first, last = asked.removeprefix("bytes=").split("-")
            whole, start = len(payload), int(first)
            payload = payload[: int(last) + 1] if last else payload
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(payload) - 1}/{whole}"
        return self.send(status, payload[start:], headers, with_body, name=f"{repo}/{name}")

    def missing(self, repo, with_body):
        there = (self.hub.folder / repo).is_dir()
        self.refuse("RevisionNotFound" if there else "RepoNotFound", with_body)

    def refuse(self, code, with_body):
        self.send(404, b"{}", {"X-Error-Code": code}, with_body)

    def send(self, status, payload, headers, with_body, name=""):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(payload)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if not with_body:
            return
        if self.hub.cuts.get(name, 0) > 0:
            self.hub.cuts[name] -= 1
            self.wfile.write(payload[: len(payload) // 2])
            self.wfile.flush()
            self.close_connection = True
            return
        self.wfile.write(payload)


def etag(path: Path) -> str:
    """What tells one content of a file from another."""
    return hashlib.sha1(path.read_bytes()).hexdigest()


@contextmanager
def serving(folder: Path):
    """The address of a hub that serves the repositories in a folder, and the hub itself."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.hub = Hub(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", server.hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
