"""Whatever is sent, the node answers in plain text with a 4xx or 503, and does no work for it."""

import asyncio
import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from network.wire.headers import JOB_ID, PAYMENT, SEGMENT, encode_header
from tests.node.fakes import FakeEngine
from tests.node.nodes import Answer, Buyer, running_node

_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=60),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(0, 9), max_size=3),
)
_FIELDS = st.sampled_from(
    [
        "prompt",
        "model_id",
        "loras",
        "height",
        "width",
        "guidance_scale",
        "negative_prompt",
        "safety_check",
        "seed",
        "num_inference_steps",
        "num_images_per_prompt",
        "other",
    ]
)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


_BODIES = st.one_of(
    st.binary(max_size=300),
    st.dictionaries(_FIELDS, _VALUES, max_size=12).map(_json),
    _VALUES.map(_json),
)
#: What HTTP lets through in a header; the rest never reaches a handler.
_HEADER_TEXT = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=80)
_HEADERS = st.dictionaries(
    st.sampled_from(
        [SEGMENT, PAYMENT, JOB_ID, "Authorization", "Content-Type", "Content-Encoding"]
    ),
    st.one_of(_HEADER_TEXT, st.binary(max_size=80).map(encode_header)),
    max_size=4,
)
_RAW = st.one_of(
    st.binary(min_size=1, max_size=200),
    st.binary(max_size=100).map(lambda tail: b"POST /text-to-image HTTP/1.1\r\n" + tail),
    st.binary(max_size=100).map(lambda tail: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + tail),
)


def check(answer: Answer) -> None:
    if answer.status == 200:
        assert answer.json["images"]
        return
    assert answer.status < 500 or answer.status == 503, (answer.status, answer.text)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.text.endswith("\n")


def drive(folder: Path, rounds: Any) -> None:
    """Run `rounds`, an async function of a buyer, against one node."""

    async def run() -> None:
        server = {"shutdown_seconds": 0, "header_timeout_seconds": 0.5}
        async with running_node(folder, FakeEngine(), server=server) as node, Buyer(node) as buyer:
            await rounds(buyer)

    asyncio.run(run())


def test_no_body_or_header_makes_a_500(tmp_path: Path) -> None:
    async def rounds(buyer: Buyer) -> None:
        good = await buyer.headers()
        cases: list[tuple[bytes, dict[str, str], bool]] = []

        @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
        @given(body=_BODIES, headers=_HEADERS, signed=st.booleans())
        def collect(body: bytes, headers: dict[str, str], signed: bool) -> None:  # noqa: FBT001
            cases.append((body, headers, signed))

        collect()
        for body, headers, signed in cases:
            sent = {**(good if signed else {}), **headers}
            check(await buyer.post("/text-to-image", body, sent))
        assert (await buyer.get("/health")).json["status"] == "OK"

    drive(tmp_path, rounds)


def test_no_bytes_on_the_socket_stop_the_node(tmp_path: Path) -> None:
    async def rounds(buyer: Buyer) -> None:
        cases: list[bytes] = []

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(data=_RAW)
        def collect(data: bytes) -> None:
            cases.append(data)

        collect()

        async def send(data: bytes) -> None:
            host, _, port = buyer.node.url.removeprefix("http://").partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(data)
            writer.write_eof()
            try:
                async with asyncio.timeout(5):
                    answer = await reader.read()
            except ConnectionError:
                answer = b""
            writer.close()
            assert not answer.startswith(b"HTTP/1.1 5"), answer

        for start in range(0, len(cases), 25):
            await asyncio.gather(*(send(data) for data in cases[start : start + 25]))
        assert (await buyer.get("/health")).status == 200

    drive(tmp_path, rounds)
