"""The ai-runner's errors (livepeer-runner 1.3, 1.4), and what go-livepeer makes of them (1.7)."""

import asyncio
import zlib
from pathlib import Path
from typing import Any

import pytest

from node.config.settings import LimitSettings
from node.engine.work import EngineBusyError, FailureKind, JobFailedError, ModelState
from tests.node.container.runners import TOKEN, called, calling, running, until_active
from tests.node.fakes import MODEL, FakeEngine
from tests.node.nodes import Answer

GUARDED: dict[str, Any] = {"container": {"token": TOKEN}}


def assert_shape_a(answer: Answer) -> str:
    """{"detail":{"msg"}}, with the same words for clients of go-livepeer's gateways."""
    body = answer.json
    assert set(body) == {"detail", "error"}
    assert set(body["detail"]) == {"msg"}
    assert body["error"]["message"] == body["detail"]["msg"]
    return str(body["detail"]["msg"])


@pytest.mark.parametrize(
    "shown",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer \xe9\xff",
    ],
)
async def test_a_missing_or_wrong_token_is_401_with_a_challenge(
    tmp_path: Path, shown: str | None
) -> None:
    engine = FakeEngine()
    async with running(tmp_path, engine, **GUARDED) as container, calling(container) as caller:
        answer = await caller.ask({} if shown is None else {"Authorization": shown})
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert assert_shape_a(answer) == "Invalid bearer token."
    assert not engine.jobs


async def test_the_right_token_opens_whatever_the_case_of_its_scheme(tmp_path: Path) -> None:
    async with running(tmp_path, **GUARDED) as container, calling(container, TOKEN) as caller:
        assert (await caller.ask()).status == 200
        assert (await caller.ask({"Authorization": f"bearer {TOKEN}"})).status == 200


async def test_without_a_token_configured_none_is_asked_for_and_any_will_do(
    tmp_path: Path,
) -> None:
    async with called(tmp_path) as caller:
        assert (await caller.ask()).status == 200
        assert (await caller.ask({"Authorization": "Bearer whatever"})).status == 200


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{", "application/json"),
        (b'{"prompt":""}', "application/json"),
        (b'{"prompt":"x","model_id":"somebody/else"}', "application/json"),
        (b"x" * 1_000_000, "application/json"),
        (b"{}", "text/plain"),
    ],
)
async def test_who_has_no_token_learns_nothing_else(
    tmp_path: Path, body: bytes, kind: str
) -> None:
    async with running(tmp_path, **GUARDED) as container, calling(container) as caller:
        answer = await caller.post(body, {"Content-Type": kind})
        assert (answer.status, assert_shape_a(answer)) == (401, "Invalid bearer token.")


@pytest.mark.parametrize("prompt", ["", "   ", "|", " | | ", "\u3000"])
async def test_a_prompt_that_says_nothing_is_400(tmp_path: Path, prompt: str) -> None:
    async with called(tmp_path) as caller:
        answer = await caller.ask(prompt=prompt)
        assert (answer.status, assert_shape_a(answer)) == (400, "Prompt must be provided.")


async def test_another_model_is_400_in_the_ai_runners_words(tmp_path: Path) -> None:
    async with called(tmp_path) as caller:
        answer = await caller.ask(model_id="somebody/else")
        assert answer.status == 400
        told = f"pipeline configured with {MODEL} but called with somebody/else."
        assert assert_shape_a(answer) == told
        echo = await caller.ask(model_id="x" * 100_000)
        assert echo.status == 400
        assert len(echo.body) < 1000


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"width": 100}, "multiple of 8"),
        ({"width": 8192, "height": 8192}, "less than or equal to 1024"),
        ({"height": 0}, "height"),
        ({"height": -8}, "height"),
        ({"num_inference_steps": 10_000}, "num_inference_steps"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"num_images_per_prompt": 1000}, "num_images_per_prompt"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt"),
        ({"num_images_per_prompt": -3}, "num_images_per_prompt"),
        ({"guidance_scale": 1e9}, "guidance_scale"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"seed": 2**32 - 1, "num_images_per_prompt": 2}, "32-bit seed"),
        ({"prompt": "x" * 5000}, "prompt"),
        ({"prompt": "a|b"}, "one prompt"),
    ],
)
async def test_out_of_bounds_is_400_so_that_the_gateway_blames_its_client(
    tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    """A 422 would have the orchestrator suspended for what a client sent."""
    engine = FakeEngine()
    async with called(tmp_path, engine) as caller:
        answer = await caller.ask(**fields)
    assert answer.status == 400
    assert words in assert_shape_a(answer)
    assert not engine.jobs


@pytest.mark.parametrize(
    ("kind", "status", "told"),
    [
        (FailureKind.INVALID, 400, "Error during model execution: odd"),
        (FailureKind.UNSAFE, 400, "odd"),
        (
            FailureKind.OUT_OF_MEMORY,
            500,
            "insufficient capacity: odd",
        ),
        (FailureKind.WORKER_CRASHED, 500, "the image worker crashed during this job"),
        (FailureKind.INTERNAL, 500, "Text-to-image pipeline error."),
    ],
)
async def test_a_failed_job_tells_whose_fault_it_is(
    tmp_path: Path, kind: FailureKind, status: int, told: str
) -> None:
    engine = FakeEngine()
    engine.failures.append(JobFailedError(kind, "odd"))
    async with called(tmp_path, engine) as caller:
        answer = await caller.ask()
        assert (answer.status, assert_shape_a(answer)) == (status, told)
        assert (await caller.ask()).status == 200


@pytest.mark.parametrize("error", [ValueError("of ours"), RuntimeError("CUDA error"), KeyError()])
async def test_whatever_else_breaks_is_500_and_leaks_nothing(
    tmp_path: Path, error: Exception
) -> None:
    engine = FakeEngine()
    engine.failures.append(error)
    async with called(tmp_path, engine) as caller:
        answer = await caller.ask()
        assert (answer.status, assert_shape_a(answer)) == (500, "Text-to-image pipeline error.")
        assert (await caller.ask()).status == 200


async def test_overload_is_500_with_the_words_that_send_gateways_elsewhere(
    tmp_path: Path,
) -> None:
    engine = FakeEngine(step_seconds=0.02)
    queue = {"max_waiting": 1, "max_wait_seconds": 30}
    async with called(tmp_path, engine, queue=queue) as caller:
        held = [asyncio.ensure_future(caller.ask(num_inference_steps=100)) for _ in range(3)]
        await until_active(engine, 2)
        answer = await caller.ask()
        assert answer.status == 500
        assert assert_shape_a(answer) == "insufficient capacity: queue_full"
        for job in held:
            job.cancel()
        await asyncio.gather(*held, return_exceptions=True)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (ModelState(MODEL, "failed", detail="it is empty"), "model_failed"),
        (ModelState(MODEL, "loading", 0.5), "waited_in_vain"),
        (
            ModelState(MODEL, "ready", 1.0, refused_pixels=64 * 64),
            "size_does_not_fit_into_memory",
        ),
    ],
)
async def test_a_model_that_cannot_take_the_job_is_no_fault_of_the_client(
    tmp_path: Path, state: ModelState, reason: str
) -> None:
    engine = FakeEngine()
    async with called(tmp_path, engine, queue={"max_wait_seconds": 0.05}) as caller:
        engine.change(state)
        answer = await caller.ask()
        assert answer.status == 500
        assert assert_shape_a(answer) == f"insufficient capacity: {reason}"


async def test_an_engine_that_is_full_is_no_fault_of_the_client(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.failures.append(EngineBusyError("full"))
    async with called(tmp_path, engine) as caller:
        answer = await caller.ask()
        assert assert_shape_a(answer) == "insufficient capacity: engine_busy"


async def test_a_body_too_large_or_unreadable_is_400(tmp_path: Path) -> None:
    most = LimitSettings().max_body_bytes
    async with called(tmp_path) as caller:
        for body, headers in (
            (b"x" * (most + 1), {}),
            (zlib.compress(b"x" * 10 * most), {"Content-Encoding": "deflate"}),
            (b"not gzip", {"Content-Encoding": "gzip"}),
        ):
            answer = await caller.post(body, headers)
            assert answer.status == 400, answer.text
            assert "body" in assert_shape_a(answer)
    async with called(tmp_path) as caller:
        exact = b'{"prompt":"x","width":64,"height":64,"num_inference_steps":1}'.ljust(most)
        assert (await caller.post(exact)).status == 200


async def test_a_body_that_does_not_come_is_400(tmp_path: Path) -> None:
    async def never() -> Any:
        yield b"{"
        await asyncio.sleep(30)

    server = {"body_timeout_seconds": 0.1, "shutdown_seconds": 0}
    async with called(tmp_path, server=server) as caller:
        headers = {"Content-Type": "application/json"}
        async with caller.http.post(
            f"{caller.url}/text-to-image", data=never(), headers=headers
        ) as answer:
            assert answer.status == 400
            assert "in time" in (await answer.json())["detail"]["msg"]


@pytest.mark.parametrize("expected", ["100-continue", "something-else"])
async def test_no_expectation_is_answered_417(tmp_path: Path, expected: str) -> None:
    async with called(tmp_path) as caller:
        assert (await caller.ask({"Expect": expected})).status == 200
