"""The endpoint as clients of Livepeer's API know it."""

import asyncio
import re
from pathlib import Path

import jsonschema_rs
import pytest

from gateway.storage.store import ImageNotStoredError
from network.errors import ProblemError
from network.wire import problems
from network.wire.messages import response_schema
from network.wire.safety import Safety
from tests.gateway.api.surface import DEFAULT, Surface, open_surface


async def test_only_the_prompt_is_needed_and_the_rest_has_livepeers_defaults(
    surface: Surface,
) -> None:
    response = await surface.post({"prompt": "a boat"})
    assert response.status == 200
    _, _, request = surface.dispatcher.seen[0]
    assert request.model_dump() == {
        "prompt": "a boat",
        "model_id": DEFAULT,
        "loras": "",
        "height": 576,
        "width": 1024,
        "guidance_scale": 7.5,
        "negative_prompt": "",
        "safety_check": True,
        "seed": None,
        "num_inference_steps": 50,
        "num_images_per_prompt": 1,
        "deterministic": False,
    }


@pytest.mark.parametrize("model", ["", None])
async def test_no_model_means_the_default_model(surface: Surface, model: str | None) -> None:
    body: dict[str, object] = {"prompt": "a boat"}
    if model is not None:
        body["model_id"] = model
    assert (await surface.post(body)).status == 200
    assert surface.dispatcher.seen[0][2].model_id == DEFAULT


async def test_every_image_is_answered_in_order_with_url_seed_and_flag(surface: Surface) -> None:
    response = await surface.post({"prompt": "a boat", "seed": 7, "num_images_per_prompt": 3})
    assert response.content_type == "application/json"
    images = (await response.json())["images"]
    assert [set(image) for image in images] == [{"url", "seed", "nsfw", "safety"}] * 3
    assert [image["seed"] for image in images] == [7, 8, 9]
    assert len({image["url"] for image in images}) == 3
    for image in images:
        async with surface.client.get(image["url"]) as answer:
            assert answer.status == 200
            assert (await answer.read()).startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize("safety", list(Safety))
async def test_clients_learn_whether_anybody_looked_and_what_was_found(
    surface: Surface, safety: Safety
) -> None:
    surface.dispatcher.safety = safety
    answer = await (await surface.post({"prompt": "a boat"})).json()
    (image,) = answer["images"]
    assert image["safety"] == safety.value
    assert image["nsfw"] is (safety in {Safety.FLAGGED, Safety.BLURRED})
    assert jsonschema_rs.validator_for(response_schema()).is_valid(answer)


async def test_the_trailing_slash_makes_no_difference(surface: Surface) -> None:
    headers = {"Authorization": "Bearer good"}
    async with surface.client.post(
        f"{surface.url}/text-to-image/", json={"prompt": "a boat"}, headers=headers
    ) as response:
        assert response.status == 200


async def test_the_answer_tells_who_how_long_and_how_much(surface: Surface) -> None:
    response = await surface.post()
    assert response.headers["Limner-Fee"] == "12345"
    assert response.headers["X-Limner-Orchestrator"] == "http://127.0.0.1:9"
    assert 0 <= float(response.headers["X-Gateway-Overhead-Ms"]) < 1000
    assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-Id"])
    job_id = response.headers["Limner-Job-Id"]
    assert surface.dispatcher.seen[0][0] == job_id
    assert f"/stream/{job_id}/" in (await response.json())["images"][0]["url"]


async def test_what_the_orchestrator_warns_of_reaches_the_client(surface: Surface) -> None:
    assert "Limner-Warnings" not in (await surface.post()).headers
    surface.dispatcher.warnings = "the model reads 75 of the prompt's 80 tokens"
    response = await surface.post()
    assert response.headers["Limner-Warnings"] == surface.dispatcher.warnings
    assert set(await response.json()) == {"images"}


async def test_a_clients_own_request_id_comes_back_but_never_names_the_job(
    surface: Surface,
) -> None:
    response = await surface.post(X_Request_Id="my-own-id-of-a-job")
    assert response.headers["X-Request-Id"] == "my-own-id-of-a-job"
    assert surface.dispatcher.seen[0][0] != "my-own-id-of-a-job"


@pytest.mark.parametrize(
    "request_id", ["short", "x" * 65, "with spaces in between", "a/../../../b/c"]
)
async def test_a_request_id_that_cannot_be_used_is_refused(
    surface: Surface, request_id: str
) -> None:
    response = await surface.post(X_Request_Id=request_id)
    assert response.status == 400
    assert (await response.json())["error"]["code"] == "invalid_request_id"
    assert not surface.dispatcher.seen


async def test_a_request_id_in_use_by_the_same_key_is_refused(surface: Surface) -> None:
    surface.dispatcher.gate.clear()
    first = asyncio.ensure_future(surface.post(X_Request_Id="0123456789abcdef"))
    await surface.until(lambda: surface.dispatcher.under_way == 1)
    second = await surface.post(X_Request_Id="0123456789abcdef")
    assert (second.status, (await second.json())["error"]["code"]) == (400, "request_id_in_use")
    another = asyncio.ensure_future(surface.post(key="other", X_Request_Id="0123456789abcdef"))
    await surface.until(lambda: surface.dispatcher.under_way == 2)
    surface.dispatcher.gate.set()
    assert (await first).status == (await another).status == 200


async def test_image_addresses_follow_the_host_the_client_used(surface: Surface) -> None:
    response = await surface.post(Host="images.example:81")
    assert (await response.json())["images"][0]["url"].startswith(
        "http://images.example:81/stream/"
    )


async def test_a_host_made_to_deceive_is_not_repeated(surface: Surface) -> None:
    response = await surface.post(Host="evil.example/x?")
    assert (await response.json())["images"][0]["url"].startswith(f"{surface.url}/stream/")


async def test_a_public_url_wins_over_the_host(tmp_path: Path) -> None:
    async with open_surface(tmp_path, public_url="https://draw.example/api") as surface:
        url = (await (await surface.post()).json())["images"][0]["url"]
    assert url.startswith("https://draw.example/api/stream/")


async def test_bounds_are_those_of_the_model_asked_for(surface: Surface) -> None:
    wide = {"prompt": "a boat", "width": 2048, "height": 1024}
    assert (await surface.post(wide)).status == 422
    assert (await surface.post({**wide, "model_id": "big"})).status == 200


async def test_an_image_the_disk_refuses_is_sent_in_the_answer(
    surface: Surface, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full_disk(request: str, data: bytes, kind: str) -> str:
        raise ImageNotStoredError(f"no space left for {len(data)} bytes of {kind} of {request}")

    monkeypatch.setattr(surface.store, "put", full_disk)
    response = await surface.post()
    assert response.status == 200
    assert (await response.json())["images"][0]["url"].startswith("data:image/png;base64,iVBORw0K")


async def test_a_problem_of_the_dispatcher_keeps_its_words(surface: Surface) -> None:
    surface.dispatcher.failure = ProblemError(problems.no_capacity(3.2, "Everybody is busy."))
    response = await surface.post()
    assert response.status == 503
    assert response.headers["Retry-After"] == "4"
    assert await response.json() == {
        "detail": {"msg": "Everybody is busy."},
        "error": {
            "message": "Everybody is busy.",
            "type": "overloaded_error",
            "code": "no_capacity",
            "param": None,
        },
    }


async def test_an_unexpected_failure_tells_the_client_nothing_but_its_id(surface: Surface) -> None:
    surface.dispatcher.failure = RuntimeError("/root/secret/path and a password")
    response = await surface.post(X_Request_Id="0123456789abcdef")
    assert response.status == 500
    text = await response.text()
    assert "secret" not in text
    assert (await response.json())["error"]["code"] == "internal_error"
    assert response.headers["X-Request-Id"] == "0123456789abcdef"
    surface.dispatcher.failure = None
    assert (await surface.post()).status == 200


async def test_a_connection_serves_one_request_after_another(surface: Surface) -> None:
    body = b'{"prompt":"a boat"}'
    one = (
        b"POST /text-to-image HTTP/1.1\r\nHost: x\r\nAuthorization: bearer good\r\n"
        b"Content-Type: application/json; charset=utf-8\r\nContent-Length: 19\r\n\r\n" + body
    )
    last = one.replace(b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n")
    answer = await surface.raw(one + one + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 3


_TIMING = re.compile(r"gateway;dur=(\d+\.\d{3})(?:, others;dur=(\d+\.\d{3}))?")


async def test_every_answer_tells_what_of_its_time_was_the_gateways(surface: Surface) -> None:
    surface.dispatcher.took = 0.25
    made = await surface.post()
    (image,) = (await made.json())["images"]
    key = {"Authorization": "Bearer good"}
    stream = {"prompt": "a boat", "stream": True}
    async with (
        surface.client.get(image["url"]) as stored,
        surface.client.get(f"{surface.url}/v1/models", headers=key) as models,
        surface.client.get(f"{surface.url}/nowhere") as refused,
        surface.client.post(
            f"{surface.url}/v1/images/generations", json=stream, headers=key
        ) as events,
    ):
        assert (stored.status, models.status, refused.status) == (200, 200, 404)
        assert events.content_type == "text/event-stream"
        for answer in (made, stored, models, refused, events):
            found = _TIMING.fullmatch(answer.headers["Server-Timing"])
            assert found is not None, answer.headers
    found = _TIMING.fullmatch(made.headers["Server-Timing"])
    assert found is not None
    assert float(found[2]) >= 250
