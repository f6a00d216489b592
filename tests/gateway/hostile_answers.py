"""Ways in which an answer to a job is an attack, by name."""

import base64
import gzip
import zlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson

from tests.gateway.hostile_orchestrator import Attack, Call
from tests.gateway.pictures import SIGNATURE, bomb_png, chunk, header, jpeg, real_png

SEED: Final = 7
PAGE: Final = b"<!DOCTYPE html><script>alert(document.domain)</script>"
PLAIN: Final = real_png()
END: Final = chunk(b"IEND")
PIXELS: Final = PLAIN[len(SIGNATURE) + 25 : -len(END)]
HEAD: Final = SIGNATURE + header(64, 64)
INTERNAL: Final = (
    *("http://169.254.169.254/latest/meta-data/", "http://localhost:22/", "http://[::1]:80/"),
    *("http://2130706433/", "//127.0.0.1/", "\\\\127.0.0.1\\share", "http:127.0.0.1/"),
    *("file:///etc/passwd", "/../../../../etc/passwd", "../../etc/passwd", "/etc/passwd\0.png"),
    *("ftp://127.0.0.1/x", "gopher://127.0.0.1:6379/_FLUSHALL", "javascript:alert(1)", "x" * 5000),
)


def url_of(image: bytes, media: str = "image/png") -> str:
    return f"data:{media};base64," + base64.b64encode(image).decode()


def answer_of(*urls: Any, **fields: Any) -> bytes:
    """The JSON of good images, but for what is said otherwise."""
    entries = [
        {"url": url, "seed": SEED + index, "nsfw": False, **fields}
        for index, url in enumerate(urls)
    ]
    return orjson.dumps({"images": entries})


def sends(body: bytes, *headers: str, **more: str) -> Attack:
    async def attack(call: Call) -> None:
        await call.answer(body, *headers, **more)

    return attack


def draws(image: bytes, *headers: str) -> Attack:
    return sends(answer_of(url_of(image)), *headers)


_NOTHING: Final = sends(b"", status="404 Not Found")


def links(link: Callable[[Call], str], then: Attack = _NOTHING) -> Attack:
    """Names a link in place of an image; `then` is what is there, if it is asked for here."""

    async def attack(call: Call) -> None:
        if call.method == "POST":
            await call.answer(answer_of(link(call)))
        else:
            await then(call)

    return attack


def begins(head: str, rest: Callable[[Call], Awaitable[None]]) -> Attack:
    async def attack(call: Call) -> None:
        await call.send(head.replace("\n", "\r\n").encode("latin-1"))
        await rest(call)

    return attack


def redirects(where: Callable[[Call], str], status: str = "307 Temporary Redirect") -> Attack:
    async def attack(call: Call) -> None:
        await call.answer(b"", f"Location: {where(call)}", status=status)

    return attack


def charges(text: str) -> Attack:
    return draws(PLAIN, f"Limner-Fee: {text}")


async def _gone(call: Call) -> None:
    del call


async def _says_more(call: Call) -> None:
    """A second answer behind the first, for the next request on the connection."""
    good = answer_of(url_of(PLAIN))
    await call.answer(b"", status="503 Service Unavailable")
    await call.answer(good)


def _gzip_bomb() -> bytes:
    return gzip.compress(bytes(64 * 2**20), 9)


_JSON: Final = "HTTP/1.1 200 OK\nContent-Type: application/json\n"
_OWN_FILE: Final = lambda call: f"{call.own}/stream/x.png"  # noqa: E731
_KEEP: Final = "Content-Type: image/png\n\n"

#: Each is a fault of its orchestrator; another one delivers.
FAULTS: Final[dict[str, Attack]] = {
    "huge body": begins(
        _JSON + "Transfer-Encoding: chunked\n\n",
        lambda call: call.endless(b"10000\r\n" + bytes(65536) + b"\r\n"),
    ),
    "announced huge body": begins(
        _JSON + "Content-Length: 1099511627776\n\n", lambda call: call.endless(b"x" * 65536)
    ),
    "a length beyond all numbers": begins(
        _JSON + f"Content-Length: {'9' * 400}\n\n", lambda call: call.endless(b"x" * 65536)
    ),
    "a negative length": begins(_JSON + "Content-Length: -1\n\n", _gone),
    "a body without end": begins(_JSON + "\n", lambda call: call.endless(b"x" * 65536)),
    "tiny chunks without end": begins(
        _JSON + "Transfer-Encoding: chunked\n\n", lambda call: call.endless(b"1\r\nx\r\n" * 9999)
    ),
    "a chunk as large as memory": begins(
        _JSON + "Transfer-Encoding: chunked\n\n7fffffffffffffff\n",
        lambda call: call.endless(b"x" * 65536),
    ),
    "trailers without end": begins(
        _JSON + "Transfer-Encoding: chunked\n\n1\n{\n0\n",
        lambda call: call.endless(b"a: b\r\n" * 9999),
    ),
    "headers without end": begins(
        "HTTP/1.1 200 OK\n", lambda call: call.endless(b"a: " + b"b" * 1000 + b"\r\n")
    ),
    "one header without end": begins(
        "HTTP/1.1 200 OK\na: ", lambda call: call.endless(b"b" * 65536)
    ),
    "a status line without end": begins("HTTP/1.1 200 ", lambda call: call.endless(b"O" * 65536)),
    "interim answers without end": begins(
        "", lambda call: call.endless(b"HTTP/1.1 100 Continue\r\n\r\n" * 999)
    ),
    "slow drip": begins(
        _JSON + "Transfer-Encoding: chunked\n\n", lambda call: call.endless(b"1\r\n \r\n", 0.05)
    ),
    "slow headers": begins("HTTP/1.1 200 OK\n", lambda call: call.endless(b"a: b\r\n", 0.05)),
    "silence": begins("", lambda call: call.hang()),
    "two lengths": begins(
        _JSON + f"Content-Length: 2\nContent-Length: {len(answer_of(url_of(PLAIN)))}\n\n",
        lambda call: call.send(answer_of(url_of(PLAIN))),
    ),
    "a length and chunks": begins(
        _JSON + "Content-Length: 5\nTransfer-Encoding: chunked\n\n0\n\n",
        lambda call: call.send(answer_of(url_of(PLAIN))),
    ),
    "a header folded over lines": begins(_JSON + "a: b\n c\nContent-Length: 2\n\n{}", _gone),
    "an answer for the next request": _says_more,
    "an upgrade": begins(
        "HTTP/1.1 101 Switching Protocols\nUpgrade: h2c\nConnection: upgrade\n\n",
        lambda call: call.endless(b"x" * 65536),
    ),
    "another protocol": begins("SSH-2.0-OpenSSH_9.6\n", _gone),
    "HTTP/0.9": begins("<html>hello</html>", _gone),
    # Bodies
    "a page": sends(PAGE, media="text/html"),
    "a page that is said to be JSON": sends(PAGE),
    "an image in place of JSON": sends(PLAIN, media="image/png"),
    "a packed bomb": sends(_gzip_bomb(), "Content-Encoding: gzip"),
    "packed images": sends(gzip.compress(answer_of(url_of(PLAIN))), "Content-Encoding: gzip"),
    "deep JSON": sends(b'{"images":' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
    "deep JSON beside images": sends(answer_of(url_of(PLAIN))[:-1] + b',"a":' + b"[" * 50_000),
    "NaN": sends(answer_of(url_of(PLAIN)).replace(b'"seed":7', b'"seed":NaN')),
    "a seed beyond all numbers": sends(
        answer_of(url_of(PLAIN)).replace(b'"seed":7', b'"seed":' + b"9" * 50_000)
    ),
    "a seed with a fraction": sends(answer_of(url_of(PLAIN), seed=7.5)),
    "a seed as text": sends(answer_of(url_of(PLAIN), seed="7")),
    "another seed": sends(answer_of(url_of(PLAIN), seed=8)),
    "a negative seed": sends(answer_of(url_of(PLAIN), seed=-7)),
    "two images": sends(answer_of(url_of(PLAIN), url_of(PLAIN))),
    "no image": sends(answer_of()),
    "images that are no list": sends(b'{"images":{"0":1}}'),
    "a thousand images": sends(answer_of(*["/x"] * 1000)),
    "an image twice under one key": sends(
        b'{"images":[{"url":"%b","url":"/x","seed":7,"nsfw":false}]}' % url_of(PLAIN).encode()
    ),
    "images twice, the second empty": sends(answer_of(url_of(PLAIN))[:-1] + b',"images":[]}'),
    "an image outside of images": sends(
        b'{"x":"%b","images":[{"url":0,"seed":7,"nsfw":false},{"url":0,"seed":8,"nsfw":false}]}'
        % url_of(PLAIN).encode()
    ),
    # Images
    "a page as base64": draws(PAGE),
    "a picture of the wrong size": draws(real_png(64, 56)),
    "a claim of 30000 pixels a side": draws(SIGNATURE + header(30_000, 30_000) + PIXELS + END),
    "pixels that unpack to a thousandfold": draws(bomb_png(64, 64, 32 * 2**20)),
    "pixels that are a page": draws(HEAD + chunk(b"IDAT", PAGE) + END),
    "too few pixels": draws(HEAD + chunk(b"IDAT", zlib.compress(bytes(99))) + END),
    "a text of a gigabyte": begins(
        _JSON + "Content-Length: 1073741824\n\n", lambda call: call.endless(b"x" * 65536)
    ),
    "a text as large as may be": draws(
        HEAD + chunk(b"tEXt", b"a\0" + bytes(200_000)) + PIXELS + END
    ),
    "a picture with a page behind it": draws(PLAIN + PAGE),
    "a picture with another behind it": draws(PLAIN + PLAIN),
    "a picture in a million pieces": draws(HEAD + chunk(b"IDAT") * 6000 + PIXELS + END),
    "a JPEG that is said to be a PNG": draws(jpeg(64, 64)),
    "a JPEG": sends(answer_of(url_of(jpeg(64, 64), "image/jpeg"))),
    "an SVG": sends(answer_of(url_of(b"<svg onload='alert(1)'/>", "image/svg+xml"))),
    "a page as a data URL": sends(answer_of("data:text/html," + PAGE.decode())),
    "a data URL of base64 that is none": sends(answer_of("data:image/png;base64,<script>")),
    "a data URL that escapes": sends(answer_of('data:image/png;base64,"},{"url":"x')),
    # Links and redirects
    "a redirect to another host": redirects(lambda call: call.canary),
    "a permanent redirect": redirects(lambda call: call.canary, "308 Permanent Redirect"),
    "a redirect to itself": redirects(lambda call: call.own + "/text-to-image"),
    "a redirect to the clouds' credentials": redirects(lambda _: INTERNAL[0]),
    "a link to another host": links(lambda call: f"{call.canary}/x.png"),
    "a link with another host in its name": links(
        lambda call: f"{call.own}@{call.canary.removeprefix('http://')}/x.png"
    ),
    "a link that redirects": links(_OWN_FILE, redirects(lambda call: f"{call.canary}/x.png")),
    "a link to a page": links(_OWN_FILE, sends(PAGE, media="text/html")),
    "a link to a bomb": links(
        _OWN_FILE, sends(_gzip_bomb(), "Content-Encoding: gzip", media="image/png")
    ),
    "a link to a huge file": links(
        _OWN_FILE,
        begins(
            "HTTP/1.1 200 OK\nContent-Length: 1099511627776\n" + _KEEP,
            lambda call: call.endless(bytes(65536)),
        ),
    ),
    "a link to a file without end": links(
        _OWN_FILE, begins("HTTP/1.1 200 OK\n" + _KEEP, lambda call: call.endless(bytes(65536)))
    ),
    "a link to headers without end": links(
        _OWN_FILE, begins("HTTP/1.1 200 OK\n", lambda call: call.endless(b"a: b\r\n" * 999))
    ),
    "a link to a slow drip": links(
        _OWN_FILE, begins("HTTP/1.1 200 OK\n" + _KEEP, lambda call: call.endless(b"x", 0.05))
    ),
    **{f"a link to {url[:40]!r}": links(lambda _, url=url: url) for url in INTERNAL},  # type: ignore[misc]
    # Money
    **{
        f"a fee of {text[:20]!r}": charges(text)
        for text in (
            *("NaN", "-1", "-0", "1e9", "0x10", "36864.0", "1,000", "Infinity", "", "1 1"),
            *("9" * 78, "9" * 79, "9" * 5000, "\xb2", "36865", "true"),
        )
    },
    **{
        f"a credit of {text!r}": draws(PLAIN, f"Limner-Credit: {text}")
        for text in ("1/0", "NaN", "-1/2", "1", "9" * 101 + "/1")
    },
}

#: Delivered all the same, but only the pixels come through.
CLEANED: Final[dict[str, bytes]] = {
    "a text that unpacks to megabytes": HEAD
    + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(16 * 2**20)))
    + PIXELS
    + END,
    "a page in a comment": HEAD + chunk(b"tEXt", b"Comment\0" + PAGE) + PIXELS + END,
    "a page before the end": HEAD + PIXELS + chunk(b"paGe", PAGE) + END,
    "a profile that unpacks to megabytes": HEAD
    + chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(16 * 2**20)))
    + PIXELS
    + END,
}
