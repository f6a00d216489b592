"""OpenAI's interface as its clients use it: fields, defaults, answers, errors."""

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.bounds import Bounds
from gateway.api.openai_body import parse_openai
from network.errors import ProblemError
from network.units import ModelId
from network.wire import problems
from network.wire.headers import WARNINGS
from network.wire.limits import Limits
from tests.gateway.api.surface import DEFAULT, Surface, open_surface

BOUNDS = Bounds(DEFAULT, Limits(max_width=1024, max_height=1024, size_multiple=8))


async def ask(
    surface: Surface, path: str, body: dict[str, Any] | None = None, key: str = "good"
) -> tuple[int, dict[str, str], Any]:
    method = "GET" if body is None else "POST"
    headers = {"Authorization": f"Bearer {key}"}
    async with surface.client.request(
        method, f"{surface.url}{path}", json=body, headers=headers
    ) as response:
        raw = await response.read()
        is_json = response.content_type == "application/json"
        return response.status, dict(response.headers), orjson.loads(raw) if is_json else raw


async def test_the_smallest_request_gives_a_url_that_can_be_fetched(tmp_path: Path) -> None:
    async with open_surface(tmp_path) as surface:
        status, headers, body = await ask(surface, "/v1/images/generations", {"prompt": "a boat"})
        assert status == 200
        (datum,) = body["data"]
        assert isinstance(body["created"], int)
        async with surface.client.get(datum["url"]) as image:
            assert image.status == 200
            assert image.content_type == "image/png"
        ((_, _, wanted),) = surface.dispatcher.seen
        assert (wanted.model_id, wanted.prompt) == (DEFAULT, "a boat")
        assert body["size"] == f"{wanted.width}x{wanted.height}"
        assert wanted.width == wanted.height
        assert headers["Limner-Fee"] == "12345"


async def test_every_field_reaches_the_request(tmp_path: Path) -> None:
    body = {
        "prompt": "p",
        "model": DEFAULT,
        "n": 2,
        "size": "512x256",
        "response_format": "b64_json",
        "seed": 7,
        "num_inference_steps": 4,
        "guidance_scale": 1.5,
        "negative_prompt": "blur",
        "loras": {"ink": 0.5},
        "user": "somebody",
        "quality": "hd",
    }
    async with open_surface(tmp_path, limits=Limits(max_loras=2)) as surface:
        status, headers, answer = await ask(surface, "/v1/images/generations", body)
        assert status == 200, answer
        ((_, _, wanted),) = surface.dispatcher.seen
        assert wanted.model_dump() == {
            "prompt": "p",
            "model_id": DEFAULT,
            "loras": '{"ink":0.5}',
            "height": 256,
            "width": 512,
            "guidance_scale": 1.5,
            "negative_prompt": "blur",
            "safety_check": True,
            "seed": 7,
            "num_inference_steps": 4,
            "num_images_per_prompt": 2,
            "deterministic": False,
        }
        assert [datum["seed"] for datum in answer["data"]] == [7, 8]
        assert all(b64decode(datum["b64_json"]).startswith(b"\x89PNG") for datum in answer["data"])
        assert not any("url" in datum for datum in answer["data"])
        assert headers[WARNINGS] == "quality has no effect here"


async def test_null_says_as_much_as_nothing(tmp_path: Path) -> None:
    body = {"prompt": "p", "n": None, "size": None, "model": None, "seed": None, "quality": None}
    async with open_surface(tmp_path) as surface:
        status, headers, _ = await ask(surface, "/v1/images/generations", body)
        assert status == 200
        assert WARNINGS not in headers


async def test_a_stream_ends_with_one_event_for_each_image(tmp_path: Path) -> None:
    body = {"prompt": "p", "n": 2, "stream": True, "partial_images": 2, "size": "64x64"}
    async with open_surface(tmp_path) as surface:
        status, headers, raw = await ask(surface, "/v1/images/generations", body)
        assert status == 200
        assert headers["Content-Type"] == "text/event-stream"
        events = [event.split(b"\n") for event in raw.strip().split(b"\n\n")]
        assert [name for name, _ in events] == [b"event: image_generation.completed"] * 2
        for _, data in events:
            told = orjson.loads(data.removeprefix(b"data: "))
            assert told["type"] == "image_generation.completed"
            assert b64decode(told["b64_json"]).startswith(b"\x89PNG")
            assert told["size"] == "64x64"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": "p", "n": 0}, "n"),
        ({"prompt": "p", "n": 99}, "n"),
        ({"prompt": "p", "n": "two"}, "n"),
        ({"prompt": "p", "size": "huge"}, "size"),
        ({"prompt": "p", "size": "4096x4096"}, "size"),
        ({"prompt": "p", "size": "64x99999"}, "size"),
        ({"prompt": "p", "response_format": "gif"}, "response_format"),
        ({"prompt": "p", "output_format": "gif"}, "output_format"),
        ({"prompt": "p", "background": "transparent"}, "background"),
        ({"prompt": "p", "seed": -1}, "seed"),
        ({"prompt": "p", "loras": {"a b": 1.0}}, "loras"),
        ({"prompt": "p", "partial_images": 4}, "partial_images"),
        ({"prompt": "p", "model": "x" * 999}, "model"),
    ],
)
async def test_a_wrong_field_is_a_bad_request_that_names_it(
    tmp_path: Path, fields: dict[str, Any], param: str
) -> None:
    async with open_surface(tmp_path) as surface:
        status, _, body = await ask(surface, "/v1/images/generations", fields)
        assert (status, body["error"]["param"]) == (400, param), body
        assert body["error"]["type"] == "invalid_request_error"
        assert param in body["error"]["message"].lower()
        assert not surface.dispatcher.seen


async def test_what_the_dispatcher_refuses_is_told_in_openais_names(tmp_path: Path) -> None:
    async with open_surface(tmp_path) as surface:
        surface.dispatcher.failure = ProblemError(problems.model_not_found("m", ["a"]))
        status, _, body = await ask(surface, "/v1/images/generations", {"prompt": "p"})
        assert (status, body["error"]["param"]) == (404, "model")
        assert body["error"]["code"] == "model_not_found"


async def test_strangers_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    async with open_surface(tmp_path) as surface:
        status, headers, body = await ask(surface, "/v1/images/generations", {"prompt": 3}, "bad")
        assert (status, body["error"]["code"]) == (401, "invalid_api_key")
        assert headers["WWW-Authenticate"] == "Bearer"
        status, _, _ = await ask(surface, "/v1/models", key="bad")
        assert status == 401


async def test_models_are_listed_and_shown(tmp_path: Path) -> None:
    async with open_surface(tmp_path) as surface:
        status, _, body = await ask(surface, "/v1/models")
        assert status == 200
        assert body["object"] == "list"
        assert [model["id"] for model in body["data"]] == [DEFAULT, "big"]
        assert {model["object"] for model in body["data"]} == {"model"}
        for path in (f"/v1/models/{DEFAULT}", f"/v1/models/{DEFAULT.replace('/', '%2F')}"):
            status, _, one = await ask(surface, path)
            assert (status, one["id"]) == (200, DEFAULT)
        status, _, body = await ask(surface, "/v1/models/nothing")
        assert (status, body["error"]["code"]) == (404, "model_not_found")


@given(body=st.binary(max_size=60))
def test_no_bytes_are_more_than_a_bad_request(body: bytes) -> None:
    with pytest.raises(ProblemError) as caught:
        parse_openai(body, BOUNDS)
    assert caught.value.problem.status == 400


_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
_fields = st.sampled_from(
    ["model", "n", "size", "seed", "stream", "loras", "guidance_scale", "safety_check", "style"]
)


@given(fields=st.dictionaries(_fields, _values | st.dictionaries(st.text(), _values, max_size=2)))
def test_whatever_the_fields_the_request_is_in_bounds_or_refused(fields: dict[str, Any]) -> None:
    body = json.dumps({"prompt": "a boat", **fields}).encode()
    faults: list[int] = []
    try:
        wanted = parse_openai(body, BOUNDS).wanted
    except ProblemError as error:
        faults.append(error.problem.status)
    else:
        limits = BOUNDS.of(ModelId(wanted.model_id))
        assert wanted.width <= limits.max_width
        assert 1 <= wanted.num_images_per_prompt <= limits.max_images
    assert faults in ([], [400])
