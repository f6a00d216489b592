"""Every refusal: its status, its headers, one envelope, and in the right order."""

import asyncio
import io
from pathlib import Path

import orjson
import pytest

from tests.gateway.api.surface import Surface, open_surface


def is_envelope(body: object, status: int) -> bool:
    match body:
        case {
            "detail": {"msg": str(said)},
            "error": {"message": str(told), "type": str(), "code": str(), "param": _},
        }:
            return status != 422 and said == told
        case {"detail": [*faults], "error": {"message": str(), "code": "validation_error"}}:
            return status == 422 and all(set(fault) == {"loc", "msg", "type"} for fault in faults)
        case _:
            return False


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic good", "good", "bearer good good"],
)
async def test_without_a_known_key_nothing_else_is_looked_at(
    surface: Surface, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    async with surface.client.post(
        f"{surface.url}/text-to-image", data=b"not json", headers=headers
    ) as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert is_envelope(await response.json(), 401)


async def test_two_authorization_headers_are_none(surface: Surface) -> None:
    answer = await surface.raw(
        b"POST /text-to-image HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n"
        b"Authorization: Bearer good\r\nAuthorization: Bearer other\r\n\r\n"
    )
    assert answer.startswith((b"HTTP/1.1 401", b"HTTP/1.1 400"))


async def test_a_stranger_is_refused_before_the_body_is_sent(surface: Surface) -> None:
    reader, writer = await asyncio.open_connection(surface.host, surface.port)
    writer.write(
        b"POST /text-to-image HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100000\r\nExpect: 100-continue\r\n\r\n"
    )
    async with asyncio.timeout(1):
        assert (await reader.readline()).startswith(b"HTTP/1.1 401")
    writer.close()


async def test_a_known_key_is_told_to_continue_once_it_may(surface: Surface) -> None:
    reader, writer = await asyncio.open_connection(surface.host, surface.port)
    writer.write(
        b"POST /text-to-image HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer good\r\nContent-Length: 19\r\nExpect: 100-continue\r\n\r\n"
    )
    async with asyncio.timeout(2):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b'{"prompt":"a boat"}')
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_an_unknown_expectation_fails(surface: Surface) -> None:
    response = await surface.post(b"{}", Expect="a-miracle")
    assert response.status == 417
    assert is_envelope(await response.json(), 417)


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 422),
        ("application/json; charset=UTF-8", 422),
        ('Application/JSON; charset="utf-8"', 422),
        ("application/json; charset=latin-1", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/problem+json", 415),
        ("multipart/form-data; boundary=x", 415),
        (";", 415),
        ("", 415),
    ],
)
async def test_bodies_are_json_in_utf_8(surface: Surface, content_type: str, status: int) -> None:
    response = await surface.post(b"{}", Content_Type=content_type)
    assert response.status == status
    assert is_envelope(await response.json(), status)


async def test_a_compressed_body_is_refused_unread(surface: Surface) -> None:
    response = await surface.post(b"\x1f\x8b\x08", Content_Encoding="gzip")
    assert response.status == 415


async def test_a_body_that_says_it_is_too_large_is_not_read(surface: Surface) -> None:
    answer = await surface.raw(
        b"POST /text-to-image HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer good\r\nContent-Length: 99999999\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"Connection: close" in answer


async def test_a_chunked_body_is_cut_off_at_the_limit(surface: Surface) -> None:
    reader, writer = await asyncio.open_connection(surface.host, surface.port)
    writer.write(
        b"POST /text-to-image HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer good\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    async with asyncio.timeout(5):
        for _ in range(9):  # 288 KiB of 256
            writer.write(chunk)
            await writer.drain()
        assert (await reader.readline()).startswith(b"HTTP/1.1 413")
    writer.close()


async def test_a_chunked_body_within_the_limit_is_as_good_as_any(surface: Surface) -> None:
    answer = await surface.raw(
        b"POST /text-to-image HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer good\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b'a\r\n{"prompt":\r\n9\r\n"a boat"}\r\n0\r\n\r\n'
    )
    assert answer.startswith(b"HTTP/1.1 200")


async def test_a_body_that_trickles_is_given_up(surface: Surface) -> None:
    answer = await surface.raw(
        b"POST /text-to-image HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer good\r\nContent-Length: 19\r\n\r\n{"
    )
    assert answer.startswith(b"HTTP/1.1 408")
    assert surface.admission.in_flight == 0


async def test_a_broken_chunk_is_a_bad_request(surface: Surface) -> None:
    answer = await surface.raw(
        b"POST /text-to-image HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer good\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{...\r\nzz\r\n"
    )
    assert answer.split()[1] == b"400"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"[]", 422),
        (b"null", 422),
        (b'"text"', 422),
        (b"\xff\xfe{}", 422),
        (b"[" * 100_000, 422),
        (b'{"prompt":1}', 422),
        (b'{"prompt":null}', 422),
        (b'{"prompt":""}', 400),
        (b'{"prompt":"   "}', 400),
        (b'{"prompt":"|"}', 400),
        (b'{"prompt":"a|b"}', 400),
        (b'{"prompt":"a","loras":"{}","seed":null}', 422),
        (b'{"prompt":"a","loras":{"a":1}}', 422),
        (b'{"prompt":"a","loras":"{\\"x\\":1}"}', 400),
        (b'{"prompt":"a","width":"576"}', 422),
        (b'{"prompt":"a","width":577}', 422),
        (b'{"prompt":"a","width":-8}', 422),
        (b'{"prompt":"a","width":1e400}', 422),
        (b'{"prompt":"a","guidance_scale":NaN}', 422),
        (b'{"prompt":"a","guidance_scale":-1}', 422),
        (b'{"prompt":"a","safety_check":1}', 422),
        (b'{"prompt":"a","seed":4294967296}', 422),
        (b'{"prompt":"a","seed":4294967295,"num_images_per_prompt":2}', 422),
        (b'{"prompt":"a","num_inference_steps":0}', 422),
        (b'{"prompt":"a","num_images_per_prompt":0}', 422),
        (b'{"prompt":"a","num_images_per_prompt":4}', 422),
        (b'{"prompt":"' + b"a" * 2001 + b'"}', 422),
    ],
)
async def test_a_bad_body_never_reaches_the_dispatcher(
    surface: Surface, body: bytes, status: int
) -> None:
    response = await surface.post(body)
    assert response.status == status
    assert is_envelope(await response.json(), status)
    assert not surface.dispatcher.seen


async def test_a_key_has_its_own_number_of_requests(surface: Surface) -> None:
    surface.dispatcher.gate.clear()
    first = asyncio.ensure_future(surface.post(key="one-at-a-time"))
    await surface.until(lambda: surface.dispatcher.under_way == 1)
    second = await surface.post(key="one-at-a-time")
    assert second.status == 429
    assert int(second.headers["Retry-After"]) >= 1
    assert is_envelope(await second.json(), 429)
    surface.dispatcher.gate.set()
    assert (await first).status == 200
    assert (await surface.post(key="one-at-a-time")).status == 200


async def test_the_gateway_takes_no_more_than_it_can(tmp_path: Path) -> None:
    async with open_surface(tmp_path, total=2) as surface:
        surface.dispatcher.gate.clear()
        held = [asyncio.ensure_future(surface.post()) for _ in range(2)]
        await surface.until(lambda: surface.dispatcher.under_way == 2)
        third = await surface.post(b"this is not even read", key="other", Content_Type="no/thing")
        assert third.status == 503
        assert int(third.headers["Retry-After"]) >= 1
        assert (await third.json())["error"]["code"] == "no_capacity"
        surface.dispatcher.gate.set()
        assert [(await one).status for one in held] == [200, 200]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "TRACE", "HEAD", "QUERY"])
async def test_another_method_gets_405_and_what_would_do(surface: Surface, method: str) -> None:
    async with surface.client.request(method, f"{surface.url}/text-to-image") as response:
        assert response.status == 405
        assert response.headers["Allow"] == "OPTIONS, POST"
        body = await response.read()
    assert method == "HEAD" or b"method_not_allowed" in body


async def test_options_tells_the_methods(surface: Surface) -> None:
    async with surface.client.options(f"{surface.url}/health") as response:
        assert (response.status, response.headers["Allow"]) == (204, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize(
    "path", ["//", "/nothing", "/text-to-image/x", "/jobs", "/%00", "/TEXT-TO-IMAGE"]
)
async def test_an_unknown_path_gets_404(surface: Surface, path: str) -> None:
    async with surface.client.get(surface.url + path) as response:
        assert response.status == 404
        assert is_envelope(await response.json(), 404)
        assert response.headers["X-Request-Id"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ],
)
async def test_what_is_no_http_gets_the_envelope_too(
    surface: Surface, sent: bytes, status: int
) -> None:
    answer = await surface.raw(sent)
    assert answer.split()[1] == b"%d" % status
    assert b'"error":{"message"' in answer


async def test_connections_beyond_the_limit_are_turned_away(tmp_path: Path) -> None:
    async with open_surface(tmp_path, max_connections=2) as surface:
        held = [await asyncio.open_connection(surface.host, surface.port) for _ in range(2)]
        await asyncio.sleep(0.02)
        answer = await surface.raw(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"Retry-After: " in answer
        for _, writer in held:
            writer.close()
        await asyncio.sleep(0.02)
        async with surface.client.get(f"{surface.url}/health") as response:
            assert response.status == 200


async def test_no_log_line_holds_a_prompt_or_a_key(surface: Surface, said: io.StringIO) -> None:
    await surface.post({"prompt": "PRIVATE-WORDS", "width": 7})
    await surface.post({"prompt": "PRIVATE-WORDS"})
    await surface.post({"prompt": "x"}, key="SECRET-KEY")
    surface.dispatcher.failure = RuntimeError("out of luck")
    await surface.post({"prompt": "PRIVATE-WORDS"})
    lines = said.getvalue().splitlines()
    assert [orjson.loads(line).get("status") for line in lines] == [422, 200, 401, None, 500]
    assert "PRIVATE" not in said.getvalue()
    assert "SECRET" not in said.getvalue()
