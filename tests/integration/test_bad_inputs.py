"""Every bad input gets a clear 4xx of the right shape, before any work is done; nothing gets a 500."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scripts.local_network.network import LocalNetwork
from tests.integration.asking import QUICK, Answer, ask, post, session
from tests.integration.journals import gateway_requests, node_jobs

pytestmark = pytest.mark.slow

PATH = "/text-to-image"


@pytest.fixture
def untouched_node(one_node: LocalNetwork) -> Iterator[LocalNetwork]:
    """The shared network; fails the test if any job reached the node or was accepted."""
    before = len(node_jobs(one_node.nodes[0])), len(gateway_requests(one_node.gateway))
    yield one_node
    after = len(node_jobs(one_node.nodes[0])), len(gateway_requests(one_node.gateway))
    assert after == before


def assert_envelope(answer: Answer) -> None:
    """The one shape that every official client understands."""
    error, detail = answer.body["error"], answer.body["detail"]
    assert set(error) == {"message", "type", "code", "param"}
    assert error["message"]
    assert error["code"]
    if answer.status == 422:
        assert detail
        for fault in detail:
            assert set(fault) >= {"loc", "msg", "type"}
            assert fault["loc"][0] == "body"
    else:
        assert detail == {"msg": error["message"]}


#: Changes to a good request -> status and, where it is about one field, its name.
BAD_FIELDS: list[tuple[dict[str, Any], int, str | None]] = [
    ({"prompt": ""}, 400, None),
    ({"prompt": "   "}, 400, None),
    ({"prompt": "|"}, 400, None),
    ({"prompt": "one|two"}, 400, None),
    ({"prompt": None}, 422, "prompt"),
    ({"prompt": 7}, 422, "prompt"),
    ({"prompt": "x" * 100_000}, 422, "prompt"),
    ({"width": "128"}, 422, "width"),
    ({"width": 128.5}, 422, "width"),
    ({"width": None}, 422, "width"),
    ({"width": True}, 422, "width"),
    ({"width": 0}, 422, "width"),
    ({"width": -128}, 422, "width"),
    ({"width": 129}, 422, "width"),
    ({"width": 8192}, 422, "width"),
    ({"width": 10**30}, 422, "width"),
    ({"height": 1}, 422, "height"),
    ({"height": -1}, 422, "height"),
    ({"height": 8192}, 422, "height"),
    ({"guidance_scale": "7.5"}, 422, "guidance_scale"),
    ({"guidance_scale": -1}, 422, "guidance_scale"),
    ({"guidance_scale": 1e9}, 422, "guidance_scale"),
    ({"negative_prompt": None}, 422, "negative_prompt"),
    ({"negative_prompt": "x" * 100_000}, 422, "negative_prompt"),
    ({"safety_check": "yes"}, 422, "safety_check"),
    ({"safety_check": 1}, 422, "safety_check"),
    ({"seed": None}, 422, "seed"),
    ({"seed": -1}, 422, "seed"),
    ({"seed": 2**32}, 422, "seed"),
    ({"seed": 2**64}, 422, "seed"),
    ({"seed": 2**32 - 1, "num_images_per_prompt": 2}, 422, "seed"),
    ({"num_inference_steps": 0}, 422, "num_inference_steps"),
    ({"num_inference_steps": -5}, 422, "num_inference_steps"),
    ({"num_inference_steps": 10_000}, 422, "num_inference_steps"),
    ({"num_images_per_prompt": 0}, 422, "num_images_per_prompt"),
    ({"num_images_per_prompt": -1}, 422, "num_images_per_prompt"),
    ({"num_images_per_prompt": 1000}, 422, "num_images_per_prompt"),
    ({"loras": "not json"}, 400, None),
    ({"loras": '["a"]'}, 400, None),
    ({"loras": '{"a": "heavy"}'}, 400, None),
    ({"loras": '{"a": 1, "b": 1, "c": 1, "d": 1, "e": 1}'}, 400, None),
    ({"loras": {}}, 422, "loras"),
    ({"model_id": None}, 422, "model_id"),
    ({"model_id": 5}, 422, "model_id"),
]


@pytest.mark.parametrize(("change", "status", "field"), BAD_FIELDS, ids=lambda v: str(v)[:40])
async def test_a_bad_field_is_refused_by_name(
    one_node: LocalNetwork, change: dict[str, Any], status: int, field: str | None
) -> None:
    async with session() as http:
        answer = await ask(http, one_node.gateway, {**QUICK, **change})
    assert answer.status == status, answer.body
    assert_envelope(answer)
    if field is not None:
        assert [fault["loc"] for fault in answer.body["detail"]] == [["body", field]]


BAD_BODIES: list[tuple[str, bytes]] = [
    ("nothing", b""),
    ("no JSON", b"prompt=a+cat"),
    ("half a JSON", b'{"prompt": "a cat"'),
    ("a list", b'["a cat"]'),
    ("a string", b'"a cat"'),
    ("null", b"null"),
    ("no prompt", b"{}"),
    ("not UTF-8", b'{"prompt": "\xff\xfe"}'),
    ("half a surrogate pair", b'{"prompt": "\\ud800"}'),
    ("NaN", b'{"prompt": "a cat", "guidance_scale": NaN}'),
    ("infinity", b'{"prompt": "a cat", "guidance_scale": Infinity}'),
    ("a number without end", b'{"prompt": "a cat", "guidance_scale": 1e999}'),
    ("deep nesting", b'{"prompt": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
]


@pytest.mark.parametrize("body", [b for _, b in BAD_BODIES], ids=[name for name, _ in BAD_BODIES])
async def test_a_body_that_is_no_request_is_refused(one_node: LocalNetwork, body: bytes) -> None:
    gateway = one_node.gateway
    headers = {"Authorization": f"Bearer {gateway.key}", "Content-Type": "application/json"}
    async with session() as http:
        answer = await post(http, gateway.url + PATH, body, headers)
    assert answer.status == 422, answer.body
    assert_envelope(answer)


async def test_an_unknown_model_is_not_found_and_named(one_node: LocalNetwork) -> None:
    async with session() as http:
        answer = await ask(http, one_node.gateway, {**QUICK, "model_id": "nobody/nothing"})
    assert (answer.status, answer.code) == (404, "model_not_found")
    assert "nobody/nothing" in answer.message
    assert_envelope(answer)


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic YTpi", "limner"]
)
async def test_without_a_good_key_nobody_gets_in(
    one_node: LocalNetwork, authorization: str | None
) -> None:
    headers = {"Content-Type": "application/json"}
    if authorization is not None:
        headers["Authorization"] = authorization
    async with session() as http:
        # Not even the body is judged for a stranger.
        answer = await post(http, one_node.gateway.url + PATH, b"{}", headers)
    assert (answer.status, answer.code) == (401, "invalid_api_key")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert_envelope(answer)


async def test_a_body_without_end_is_cut_off(one_node: LocalNetwork) -> None:
    gateway = one_node.gateway
    headers = {"Authorization": f"Bearer {gateway.key}", "Content-Type": "application/json"}
    body = orjson.dumps({"prompt": "x" * 900_000})
    async with session() as http:
        answer = await post(http, gateway.url + PATH, body, headers)
    assert (answer.status, answer.code) == (413, "body_too_large")
    assert_envelope(answer)


async def test_another_content_type_is_refused(one_node: LocalNetwork) -> None:
    gateway = one_node.gateway
    headers = {"Authorization": f"Bearer {gateway.key}", "Content-Type": "text/plain"}
    async with session() as http:
        answer = await post(http, gateway.url + PATH, orjson.dumps(dict(QUICK)), headers)
    assert (answer.status, answer.code) == (415, "unsupported_media_type")
    assert_envelope(answer)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_another_method_is_told_which_would_do(one_node: LocalNetwork, method: str) -> None:
    async with (
        session() as http,
        http.request(method, one_node.gateway.url + PATH) as answer,
    ):
        assert answer.status == 405
        assert "POST" in answer.headers["Allow"]
        assert_envelope(Answer(answer.status, answer.headers, await answer.json()))


async def test_another_path_is_not_found(one_node: LocalNetwork) -> None:
    async with session() as http, http.get(one_node.gateway.url + "/image-to-video") as answer:
        assert answer.status == 404
        assert_envelope(Answer(answer.status, answer.headers, await answer.json()))


async def test_no_refusal_leaves_a_trace_in_a_journal(untouched_node: LocalNetwork) -> None:
    async with session() as http:
        for change, status, _ in BAD_FIELDS:
            answer = await ask(http, untouched_node.gateway, {**QUICK, **change})
            assert answer.status == status


async def test_loras_go_to_the_node_and_its_refusal_of_an_unknown_one_comes_back(
    one_node: LocalNetwork,
) -> None:
    """The gateway does not know which LoRAs there are; the node refuses before any work."""
    jobs = len(node_jobs(one_node.nodes[0]))
    async with session() as http:
        unknown = {**QUICK, "loras": '{"limner/night": 1.0, "some/adapter": 1.0}'}
        refused = await ask(http, one_node.gateway, unknown)
        assert len(node_jobs(one_node.nodes[0])) == jobs
        drawn = await ask(http, one_node.gateway, {**QUICK, "loras": '{"limner/night": 1.0}'})
    assert (refused.status, refused.body["error"]["code"]) == (404, "lora_not_found")
    assert_envelope(refused)
    message = refused.body["error"]["message"]
    assert "LoRa 'some/adapter' is not offered here." in message
    assert "limner/night, limner/outlines" in message
    assert drawn.status == 200, drawn.body


async def test_unknown_keys_whole_floats_and_a_trailing_slash_are_taken(
    one_node: LocalNetwork,
) -> None:
    gateway = one_node.gateway
    headers = {"Authorization": f"Bearer {gateway.key}", "Content-Type": "application/json"}
    body = orjson.dumps({**QUICK, "width": 128.0, "strength": 0.5})
    async with session() as http:
        answer = await post(http, gateway.url + PATH + "/", body, headers)
    assert answer.status == 200, answer.body


NODE_REFUSALS: list[tuple[str, dict[str, str], set[int]]] = [
    ("no credentials", {}, {402, 403}),
    ("credentials that are no base64", {"Livepeer-Segment": "%%%"}, {403}),
    ("credentials that are no protobuf", {"Livepeer-Segment": "////"}, {403}),
    ("a payment that is no base64", {"Livepeer-Payment": "%%%"}, {402}),
    ("a payment that is no protobuf", {"Livepeer-Payment": "////"}, {402}),
]


@pytest.mark.parametrize(
    ("headers", "statuses"),
    [(headers, statuses) for _, headers, statuses in NODE_REFUSALS],
    ids=[name for name, _, _ in NODE_REFUSALS],
)
async def test_the_node_refuses_strangers_in_plain_text(
    untouched_node: LocalNetwork, headers: dict[str, str], statuses: set[int]
) -> None:
    async with session() as http:
        answer = await post(
            http,
            untouched_node.nodes[0].url + PATH,
            orjson.dumps({**QUICK, "model_id": "limner/shapes"}),
            {"Content-Type": "application/json", **headers},
        )
    assert answer.status in statuses, answer.body
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.body.endswith(b"\n")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
_FIELDS = ("prompt", "width", "height", "seed", "loras", "model_id", "num_inference_steps")
# No prompt of these has a letter: whatever else is valid, no picture is asked for.
_BODIES = st.binary(max_size=200) | st.dictionaries(
    st.sampled_from(_FIELDS) | st.text(max_size=8), _JSON, max_size=6
).map(lambda value: json.dumps(value | {"num_images_per_prompt": 0}).encode())
_HEADER_TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60)
_NAMES = (
    "X-Request-Id",
    "Accept",
    "Content-Type",
    "Accept-Encoding",
    "Cookie",
    "Expect",
    "Origin",
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=_BODIES,
    extra=st.dictionaries(st.sampled_from(_NAMES), _HEADER_TEXT, max_size=3),
    to_node=st.booleans(),
)
def test_no_body_and_no_header_causes_a_500(
    one_node: LocalNetwork, body: bytes, extra: dict[str, str], *, to_node: bool
) -> None:
    gateway, node = one_node.gateway, one_node.nodes[0]
    headers = {
        "Authorization": f"Bearer {gateway.key}",
        "Content-Type": "application/json",
        **extra,
    }
    if to_node:
        headers |= {"Livepeer-Segment": extra.get("Cookie", ""), "Livepeer-Payment": ""}

    async def send() -> int:
        async with session() as http:
            url = (node.url if to_node else gateway.url) + PATH
            try:
                return (await post(http, url, body, headers)).status
            except aiohttp.ServerDisconnectedError:
                return 400  # hung up on what is no HTTP

    assert 400 <= asyncio.run(send()) < 500
