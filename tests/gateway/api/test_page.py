"""The page's files over HTTP; `tests/interop/test_page.py` drives the page itself."""

import gzip
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.api.page.files import _STATIC, POLICY
from tests.gateway.api.surface import Surface

FILES = sorted(path.name for path in _STATIC.iterdir())
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


async def get(surface: Surface, path: str, **headers: str) -> tuple[int, Mapping[str, str], bytes]:
    """What is sent, byte for byte."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with surface.client.request(
        "GET", f"{surface.url}{path}", headers=sent, auto_decompress=False
    ) as response:
        return response.status, response.headers, await response.read()


async def test_the_page_is_at_the_root_and_needs_no_key(surface: Surface) -> None:
    status, headers, body = await get(surface, "/", Accept_Encoding="identity")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert body == (_STATIC / "index.html").read_bytes()


@pytest.mark.parametrize("name", FILES)
async def test_every_file_is_served_whole_with_headers_that_forbid_what_it_does_not_need(
    surface: Surface, name: str
) -> None:
    path = _STATIC / name
    status, headers, body = await get(surface, f"/page/{name}", Accept_Encoding="identity")
    assert (status, body) == (200, path.read_bytes())
    assert headers["Content-Type"] == TYPES[path.suffix]
    assert headers["Content-Security-Policy"] == POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-cache"


def test_the_policy_allows_nothing_inline_and_nobody_else() -> None:
    allowed = dict(one.split(" ", 1) for one in POLICY.split("; "))
    assert allowed["default-src"] == allowed["frame-ancestors"] == allowed["base-uri"] == "'none'"
    assert allowed["script-src"] == allowed["style-src"] == allowed["connect-src"] == "'self'"
    assert "unsafe" not in POLICY
    assert "http" not in POLICY


@pytest.mark.parametrize("accepted", ["gzip", "br, gzip;q=0.5", "*"])
async def test_who_takes_gzip_gets_it_under_another_tag(surface: Surface, accepted: str) -> None:
    _, plain, body = await get(surface, "/page/app.js", Accept_Encoding="identity")
    _, headers, zipped = await get(surface, "/page/app.js", Accept_Encoding=accepted)
    assert headers["Content-Encoding"] == "gzip"
    assert headers["Vary"] == plain["Vary"] == "Accept-Encoding"
    assert gzip.decompress(zipped) == body
    assert len(zipped) < len(body)
    assert headers["ETag"] != plain["ETag"]


@pytest.mark.parametrize("accepted", ["identity", "br", "gzip;q=0", "gzip; q=0.0", ""])
async def test_who_does_not_take_gzip_gets_none(surface: Surface, accepted: str) -> None:
    _, headers, _ = await get(surface, "/", Accept_Encoding=accepted)
    assert "Content-Encoding" not in headers


async def test_what_a_browser_has_already_is_not_sent_again(surface: Surface) -> None:
    _, headers, _ = await get(surface, "/", Accept_Encoding="identity")
    tag = headers["ETag"]
    assert re.fullmatch('"[0-9a-f]{32}"', tag), "strong"
    for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        status, headers, body = await get(
            surface, "/", Accept_Encoding="identity", If_None_Match=known
        )
        assert (status, body, headers["ETag"]) == (304, b"", tag)
        assert headers["Content-Security-Policy"] == POLICY
    for other in ('"other"', tag[:-2] + '"'):
        status, _, _ = await get(surface, "/", Accept_Encoding="identity", If_None_Match=other)
        assert status == 200


@pytest.mark.parametrize(
    "path",
    ["/page/", "/page/no.js", "/page/../app.py", "/page/files.py", "/page/%61pp.js", "/page//"],
)
async def test_nothing_else_is_found_there(surface: Surface, path: str) -> None:
    answer = await surface.raw(
        b"GET " + path.encode() + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 404")


async def test_head_and_other_methods(surface: Surface) -> None:
    async with surface.client.head(f"{surface.url}/") as response:
        assert response.status == 200
        assert await response.read() == b""
    async with surface.client.post(f"{surface.url}/") as response:
        assert response.status == 405


def test_the_page_asks_for_its_own_files_only_and_has_nothing_inline() -> None:
    html = (_STATIC / "index.html").read_text()
    for _, address in re.findall(r'(src|href)="([^"]+)"', html):
        if not address.startswith("#"):
            assert address.removeprefix("page/") in FILES
    assert not re.search(r"<style|style=|<script(?![^>]* src=)|\son[a-z]+=", html)
    for path in _STATIC.glob("*.js"):
        text = path.read_text()
        imported = re.findall(r'from "\./([^"]+)"', text)
        assert set(imported) <= set(FILES)
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|innerHTML|eval\(", text)


def test_every_file_of_the_page_is_in_use() -> None:
    texts = "".join(path.read_text() for path in _STATIC.iterdir())
    unused = [
        name
        for name in FILES
        if name != "index.html" and f"page/{name}" not in texts and f"./{name}" not in texts
    ]
    assert unused == []
    assert Path(_STATIC).is_dir()
