"""The part of the Hugging Face hub's API that fetching a model needs, on loopback."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from typing_extensions import override

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/(?P<what>revision|tree)/(?P<revision>[^?]+)")
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass(slots=True)
class Hub:
    """One repository. `cuts` are connections to break: after so many bytes of that file, in turn."""

    repo: str
    files: dict[str, bytes]
    token: str | None = None
    cuts: dict[str, list[int]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    url: str = ""

    def fetched(self) -> set[str]:
        """The files whose content was asked for."""
        gets = (_FILE.fullmatch(one.path) for one in self.seen if one.method == "GET")
        return {found["path"] for found in gets if found is not None}


def repository(folder: Path) -> dict[str, bytes]:
    """A folder's files as a repository's."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextmanager
def hub_of(hub: Hub) -> Iterator[Hub]:
    """Serve a repository for the length of the block."""

    class Handler(_Handler):
        served = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Hub

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    @override
    def log_message(self, format: str, *args: Any) -> None:
        del format, args

    def _answer(self) -> None:
        hub = self.served
        path = unquote(urlsplit(self.path).path)
        asked = Seen(
            self.command, path, self.headers.get("Range"), self.headers.get("Authorization")
        )
        hub.seen.append(asked)
        if hub.token is not None and asked.authorization != f"Bearer {hub.token}":
            self._error(401, "RepoNotFound")
        elif found := _API.fullmatch(path):
            self._tell(found)
        elif found := _FILE.fullmatch(path):
            self._send(found, asked.range)
        else:
            self._error(404, "RepoNotFound")

    def _tell(self, found: re.Match[str]) -> None:
        hub = self.served
        if found["repo"] != hub.repo:
            self._error(404, "RepoNotFound")
        elif found["revision"] not in ("main", COMMIT):
            self._error(404, "RevisionNotFound")
        elif found["what"] == "revision":
            self._json({"id": hub.repo, "sha": COMMIT, "siblings": [], "private": False})
        else:
            self._json([_entry(path, content) for path, content in hub.files.items()])

    def _send(self, found: re.Match[str], wanted: str | None) -> None:
        hub = self.served
        content = hub.files.get(found["path"])
        if found["repo"] != hub.repo or content is None:
            self._error(404, "EntryNotFound")
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{_hash(found["path"], content)}"')
        self.send_header("Content-Length", str(len(content) - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        body = content[start:]
        cuts = hub.cuts.get(found["path"])
        if cuts:
            body = body[: cuts.pop(0)]
            self.close_connection = True
        self.wfile.write(body)
        self.wfile.flush()
        hub.sent[found["path"]] = hub.sent.get(found["path"], 0) + len(body)

    def _json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _entry(path: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {
        "type": "file",
        "path": path,
        "size": len(content),
        "oid": _git_hash(content),
    }
    if path.endswith(".safetensors"):
        entry["lfs"] = {
            "oid": hashlib.sha256(content).hexdigest(),
            "size": len(content),
            "pointerSize": 134,
        }
    return entry


def _hash(path: str, content: bytes) -> str:
    """As the hub: large files by SHA-256, small ones as git names them."""
    if path.endswith(".safetensors"):
        return hashlib.sha256(content).hexdigest()
    return _git_hash(content)


def _git_hash(content: bytes) -> str:
    blob = b"blob %d\0" % len(content) + content
    return hashlib.sha1(blob, usedforsecurity=False).hexdigest()
