"""Whatever is sent, the gateway answers in its own words, and never with a fault of its own."""

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gateway.api.surface import Surface, open_surface

FIELDS = (
    *("prompt", "model_id", "loras", "height", "width", "guidance_scale", "negative_prompt"),
    *("safety_check", "seed", "num_inference_steps", "num_images_per_prompt", "unknown"),
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([0, 1, 8, 64, 576, 1024, 2**31, 2**32, 2**63, 2**64, -1, 1e308, "", "|"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
BODIES = st.one_of(
    st.binary(max_size=300),
    JSON.map(lambda value: repr(value).encode(errors="surrogatepass")),
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=8).map(
        lambda fields: (
            orjson.dumps({"prompt": "a", **fields}, default=str, option=orjson.OPT_NON_STR_KEYS)
            if all(_fits(value) for value in fields.values())
            else b"{}"
        )
    ),
)
HEADER_VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=80)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            *("Content-Type", "Content-Encoding", "Expect", "X-Request-Id", "Host", "Accept"),
            *("Authorization", "Transfer-Encoding", "Connection", "Upgrade", "Cookie", "Range"),
            *("If-None-Match", "X-Forwarded-Host", "Origin"),
        ]
    ),
    HEADER_VALUES,
    max_size=5,
)
METHODS = st.sampled_from(["GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH", "FOO"])
PATHS = st.one_of(
    st.sampled_from(
        ["/text-to-image", "/text-to-image/", "/jobs/0123456789abcdef", "/health", "/openapi.json"]
    ),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40).map(
        lambda t: "/" + t
    ),
)


def _fits(value: object) -> bool:
    try:
        orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, orjson.JSONEncodeError):
        return False
    return True


def in_new_folder(work: Callable[[Path], Coroutine[None, None, None]]) -> None:
    """Hypothesis runs one test many times; each time starts with nothing stored."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(work(Path(folder)))


async def ask(surface: Surface, sent: bytes, seconds: float) -> bytes:
    """The first line of the answer; b"" when there is none, as to what is no whole request."""
    reader, writer = await asyncio.open_connection(surface.host, surface.port)
    writer.write(sent)
    try:
        async with asyncio.timeout(seconds):
            return await reader.readline()
    except (ConnectionResetError, TimeoutError):
        return b""
    finally:
        writer.close()


@settings(max_examples=25, deadline=None)
@given(st.lists(BODIES, min_size=12, max_size=12))
def test_no_body_is_a_fault_of_ours(bodies: list[bytes]) -> None:
    async def send_all(folder: Path) -> None:
        async with open_surface(folder) as surface:
            for body in bodies:
                response = await surface.post(body)
                assert response.status in {200, 400, 422}, (body, await response.text())
                assert response.content_type == "application/json"

    in_new_folder(send_all)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(METHODS, PATHS, HEADERS, st.binary(max_size=60)), min_size=8, max_size=8)
)
def test_no_head_is_a_fault_of_ours(
    requests: list[tuple[str, str, dict[str, str], bytes]],
) -> None:
    async def send_all(folder: Path) -> None:
        async with open_surface(folder) as surface:
            for method, path, headers, body in requests:
                lines = [f"{method} {path} HTTP/1.1", "Authorization: Bearer good"]
                lines += [f"{name}: {value}" for name, value in headers.items()]
                lines += [f"Content-Length: {len(body)}", "", ""]
                answer = await ask(surface, "\r\n".join(lines).encode("latin-1") + body, 5)
                assert answer.split()[1][:1] in {b"2", b"3", b"4"}, (lines, answer)

    in_new_folder(send_all)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=200), min_size=8, max_size=8))
def test_no_noise_is_a_fault_of_ours(noises: list[bytes]) -> None:
    async def send_all(folder: Path) -> None:
        async with open_surface(folder) as surface:
            for noise in noises:
                answer = await ask(surface, noise + b"\r\n\r\n", 0.1)
                assert not answer or answer.split()[1][:1] == b"4", (noise, answer)

    in_new_folder(send_all)
