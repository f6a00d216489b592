"""The page's files over HTTP: read once, compressed once, sent from memory."""

import gzip
import hashlib
import re
from asyncio import to_thread
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp.web import BaseRequest, Response, StreamResponse

from gateway.api.answers import SERVER
from gateway.api.exchange import Exchange
from network.errors import ProblemError
from network.wire import problems

#: Where the files of the page are; the page itself is at "/".
PREFIX: Final = "/page/"
_INDEX: Final = "index.html"
#: What tells the page's scripts that nobody is served without a key.
_KEYLESS: Final = re.compile(b'data-key="required"')
#: And which files it offers.
_FORMATS: Final = re.compile(b'data-formats="[^"]*"')
_STATIC: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
#: Nothing from elsewhere, nothing inline, nothing in a frame. `data:` is for previews, which come as text
#: in events, and for an image that could not be stored.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS: Final = {
    # Files have no version in their names: browsers keep them, and ask each time whether they hold.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "Referrer-Policy": "no-referrer",
    "Server": SERVER,
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class _File:
    type: str
    body: bytes
    #: Names the bytes; what is compressed has other bytes, and another name.
    tag: str
    zipped: bytes
    zipped_tag: str


class Page:
    """The handlers of "/" and of `PREFIX`; nobody is asked for a key."""

    def __init__(self, files: dict[str, _File]) -> None:
        self._files = files

    async def index(self, request: BaseRequest, exchange: Exchange) -> StreamResponse:
        del exchange
        return _answer(request, self._files[_INDEX])

    async def show(self, request: BaseRequest, exchange: Exchange) -> StreamResponse:
        """Raises ProblemError 404."""
        del exchange
        file = self._files.get(request.rel_url.raw_path.removeprefix(PREFIX))
        if file is None:
            raise ProblemError(problems.not_found("file of the page"))
        return _answer(request, file)


async def open_page(
    *, wanted: bool = True, keyless: bool = False, formats: Iterable[str] = ("png",)
) -> Page | None:
    """None where it is not wanted. Raises OSError where the package is not whole.

    `keyless` spares whoever opens it the question for a key: those without one may ask, too.
    `formats` are the image files to choose from, the usual one first.
    """
    if not wanted:
        return None
    return await to_thread(_read_page, keyless=keyless, formats=" ".join(formats))


def _read_page(*, keyless: bool, formats: str) -> Page:
    files = {path.name: _read(path) for path in _STATIC.iterdir() if path.suffix in _TYPES}
    if _INDEX not in files:
        raise FileNotFoundError(_STATIC / _INDEX)
    index = _FORMATS.sub(f'data-formats="{formats}"'.encode(), files[_INDEX].body)
    if keyless:
        index = _KEYLESS.sub(b'data-key="optional"', index)
    return Page({**files, _INDEX: _file(".html", index)})


def _read(path: Path) -> _File:
    return _file(path.suffix, path.read_bytes())


def _file(suffix: str, body: bytes) -> _File:
    digest = hashlib.sha256(body).hexdigest()[:32]
    # Without a time in it, the same file is the same bytes on every worker and after every start.
    zipped = gzip.compress(body, mtime=0)
    return _File(_TYPES[suffix], body, f'"{digest}"', zipped, f'"{digest}-gzip"')


def _answer(request: BaseRequest, file: _File) -> Response:
    zipped = _takes_gzip(request.headers.get("Accept-Encoding", ""))
    tag = file.zipped_tag if zipped else file.tag
    headers = {**_HEADERS, "ETag": tag}
    known = request.headers.get("If-None-Match", "")
    # `*` and weak names are compared as https://www.rfc-editor.org/rfc/rfc9110#section-13.1.2 has it.
    if known == "*" or tag in {one.strip().removeprefix("W/") for one in known.split(",")}:
        return Response(status=304, headers=headers)
    headers["Content-Type"] = file.type
    if zipped:
        headers["Content-Encoding"] = "gzip"
    return Response(body=file.zipped if zipped else file.body, headers=headers)


def _takes_gzip(accepted: str) -> bool:
    for one in accepted.split(","):
        name, _, weight = one.partition(";")
        if name.strip().lower() in {"gzip", "*"}:
            return weight.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False
