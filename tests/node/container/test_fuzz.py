"""Whatever is posted, the answer is one of the five that go-livepeer's worker survives, as documented."""

import asyncio
import json
from pathlib import Path
from typing import Any

import jsonschema_rs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from network.wire.messages import TextToImageRequest
from tests.node.container.runners import calling, running
from tests.node.fakes import FakeEngine

_VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(0, 200),
    st.floats(),
    st.text(max_size=60),
    st.integers(0, 2000).map(str),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(0, 9), max_size=3),
)
_FIELDS = st.sampled_from([*TextToImageRequest.model_fields, "other"])
_BODIES = st.one_of(
    st.binary(max_size=300),
    _VALUES.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(_FIELDS, _VALUES, max_size=12).map(lambda body: json.dumps(body).encode()),
    st.dictionaries(_FIELDS, _VALUES, max_size=3).map(
        lambda body: json.dumps({"prompt": "x", **body}).encode()
    ),
)
_HEADER_TEXT = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60)
_HEADERS = st.dictionaries(
    st.sampled_from(["Authorization", "Content-Type", "Expect", "Accept", "X-Request-Id"]),
    _HEADER_TEXT,
    max_size=3,
)


def _documented(document: dict[str, Any]) -> dict[int, jsonschema_rs.Validator]:
    """What the published contract says of each answer to a request for images."""
    responses = document["paths"]["/text-to-image"]["post"]["responses"]
    return {
        int(status): jsonschema_rs.validator_for(
            {
                **response["content"]["application/json"]["schema"],
                "components": document["components"],
            }
        )
        for status, response in responses.items()
    }


def test_every_answer_is_one_of_the_five_and_json(tmp_path: Path) -> None:
    """`Caller.post` holds each answer to that; nothing but a good request is worked on."""

    async def run() -> None:
        engine = FakeEngine()
        server = {"shutdown_seconds": 0}
        async with (
            running(tmp_path, engine, server=server) as container,
            calling(container) as caller,
        ):
            loop = asyncio.get_running_loop()
            documented = _documented((await caller.get("/openapi.json")).json)

            def post(body: bytes, headers: dict[str, str]) -> None:
                asking = caller.post(body, headers)
                answer = asyncio.run_coroutine_threadsafe(asking, loop).result(30)
                assert answer.status != 500, answer.text
                documented[answer.status].validate(answer.json)

            fuzzed = settings(
                max_examples=150,
                suppress_health_check=[HealthCheck.function_scoped_fixture],
                deadline=None,
            )(given(_BODIES, _HEADERS)(post))
            await asyncio.to_thread(fuzzed)

    asyncio.run(run())
