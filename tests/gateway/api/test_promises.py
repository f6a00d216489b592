"""Requests whose answers are kept: repeats, and what is asked for later."""

import asyncio
import io
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from gateway.config import JobSettings
from gateway.storage.store import (
    ImageNotStoredError,
    ImageStoreSilentError,
    StoredImage,
    nothing_to_close,
)
from network.errors import Problem, ProblemError
from network.wire import problems
from tests.gateway.api.surface import Surface, open_surface
from tests.gateway.stored_images import segments
from tests.gateway.waiting import until_async

ID = "0123456789abcdef-own"
ASYNC = "respond-async"


@pytest.fixture
async def surface(tmp_path: Path) -> AsyncIterator[Surface]:
    async with opened(tmp_path) as one:
        yield one


def opened(
    folder: Path, jobs: JobSettings | None = None, **options: Any
) -> AbstractAsyncContextManager[Surface]:
    """The surface over the same folder each time: what was kept is there again."""
    return open_surface(folder / "images", keeps=jobs or JobSettings(), **options)


async def images(
    surface: Surface, key: str = "good", *, body: dict[str, Any] | None = None, **headers: str
) -> tuple[int, Any, aiohttp.ClientResponse]:
    """POST /v1/images/generations."""
    sent = {"Authorization": f"Bearer {key}"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    fields = body or {"prompt": "a boat"}
    async with surface.client.post(
        f"{surface.url}/v1/images/generations", json=fields, headers=sent
    ) as response:
        return response.status, await response.json(), response


async def job(
    surface: Surface, name: str = ID, *, method: str = "GET", key: str = "good"
) -> tuple[int, Any]:
    async with surface.client.request(
        method, f"{surface.url}/jobs/{name}", headers={"Authorization": f"Bearer {key}"}
    ) as response:
        return response.status, await response.json()


async def ended(surface: Surface, name: str = ID) -> Any:
    """What the job came to."""
    told: Any = None

    async def has_ended() -> bool:
        nonlocal told
        told = (await job(surface, name))[1]
        return told.get("state") in {"done", "failed", "cancelled"}

    await until_async(has_ended)
    return told


# Repeats


async def test_a_repeat_gets_the_answer_and_runs_nothing(surface: Surface) -> None:
    first = await surface.post(Idempotency_Key="k-1")
    again = await surface.post(Idempotency_Key="k-1")
    assert first.status == again.status == 200
    assert await first.text() == await again.text()
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    for name in ("Limner-Job-Id", "Limner-Fee", "X-Limner-Orchestrator"):
        assert first.headers[name] == again.headers[name]
    assert len(surface.dispatcher.seen) == 1
    image = (await again.json())["images"][0]["url"]
    async with surface.client.get(image) as fetched:
        assert (await fetched.read()).startswith(b"\x89PNG")


async def test_repeats_in_flight_wait_for_the_one_that_runs(surface: Surface) -> None:
    surface.dispatcher.gate.clear()
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(surface.post(Idempotency_Key="k")) for _ in range(10)]
        await surface.until(lambda: surface.dispatcher.under_way == 1)
        surface.dispatcher.gate.set()
    answers = {await one.result().text() for one in asking}
    assert len(answers) == len(surface.dispatcher.seen) == 1
    assert sum("Idempotency-Replayed" in one.result().headers for one in asking) == 9


async def test_a_key_that_may_have_one_request_may_repeat_it_in_flight(surface: Surface) -> None:
    surface.dispatcher.gate.clear()
    first = asyncio.ensure_future(surface.post(key="one-at-a-time", Idempotency_Key="k"))
    await surface.until(lambda: surface.dispatcher.under_way == 1)
    again = asyncio.ensure_future(surface.post(key="one-at-a-time", Idempotency_Key="k"))
    assert (await surface.post(key="one-at-a-time", Idempotency_Key="other")).status == 429
    surface.dispatcher.gate.set()
    assert (await first).status == (await again).status == 200


async def test_a_lost_connection_loses_no_answer(surface: Surface) -> None:
    surface.dispatcher.gate.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await surface.post(Idempotency_Key="k")
    surface.dispatcher.gate.set()
    answer = await surface.post(Idempotency_Key="k")
    assert answer.status == 200
    assert answer.headers["Idempotency-Replayed"] == "true"
    assert len(surface.dispatcher.seen) == 1
    assert surface.dispatcher.cancelled == 0


async def test_another_body_is_422_at_either_endpoint(surface: Surface) -> None:
    assert (await surface.post(Idempotency_Key="k")).status == 200
    other = await surface.post({"prompt": "a ship"}, Idempotency_Key="k")
    status, body, _ = await images(surface, Idempotency_Key="k")
    assert other.status == status == 422
    for told in (await other.json(), body):
        assert told["error"]["code"] == "idempotency_key_reused"
    assert len(surface.dispatcher.seen) == 1


async def test_another_body_is_422_while_the_first_is_under_way(surface: Surface) -> None:
    surface.dispatcher.gate.clear()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(surface.post(Idempotency_Key="k"))
        await surface.until(lambda: surface.dispatcher.under_way == 1)
        other = await surface.post({"prompt": "another boat"}, Idempotency_Key="k")
        surface.dispatcher.gate.set()
    assert (other.status, first.result().status) == (422, 200)
    assert len(surface.dispatcher.seen) == 1


async def test_keys_of_another_client_are_other_keys(surface: Surface) -> None:
    first = await surface.post(Idempotency_Key="k")
    other = await surface.post({"prompt": "a ship"}, key="other", Idempotency_Key="k")
    assert first.status == other.status == 200
    assert len(surface.dispatcher.seen) == 2


@pytest.mark.parametrize("key", ["", "two words", "x" * 256])
async def test_what_is_no_key_is_refused(surface: Surface, key: str) -> None:
    answer = await surface.post(Idempotency_Key=key)
    assert answer.status == 400
    assert (await answer.json())["error"]["param"] == "Idempotency-Key"
    assert not surface.dispatcher.seen


@pytest.mark.parametrize(
    ("problem", "is_kept"),
    [
        (problems.bad_request("no"), True),
        (problems.unsafe("no"), True),
        (problems.lora_not_found("no"), True),
        (problems.budget_exceeded("no", 60.0), False),
        (problems.rate_limited(1.0), False),
        (problems.no_capacity(1.0), False),
        (problems.internal(), False),
    ],
)
async def test_lasting_faults_bind_and_passing_ones_do_not(
    surface: Surface, problem: Problem, *, is_kept: bool
) -> None:
    surface.dispatcher.failure = ProblemError(problem)
    first = await surface.post(Idempotency_Key="k")
    surface.dispatcher.failure = None
    again = await surface.post(Idempotency_Key="k")
    assert first.status == problem.status
    assert ("Retry-After" in first.headers) == ("Retry-After" in problem.headers)
    assert again.status == (problem.status if is_kept else 200)
    assert len(surface.dispatcher.seen) == (1 if is_kept else 2)
    if is_kept:
        assert await first.text() == await again.text() == problem.body().decode()


async def test_base64_is_answered_again_from_the_image_store(surface: Surface) -> None:
    asked = {"prompt": "a boat", "n": 2, "response_format": "b64_json"}
    first = await images(surface, body=asked, Idempotency_Key="k")
    again = await images(surface, body=asked, Idempotency_Key="k")
    assert first[0] == again[0] == 200
    assert first[1] == again[1]
    assert first[1]["data"][0]["b64_json"].startswith("iVBOR")
    assert again[2].headers["Idempotency-Replayed"] == "true"
    for file in segments(surface.folder):
        file.unlink()
    status, body, _ = await images(surface, body=asked, Idempotency_Key="k")
    assert status == 409
    assert body["error"]["code"] == "answer_lost"
    assert "12345 wei" in body["error"]["message"]
    assert len(surface.dispatcher.seen) == 1


async def silent(*_: object) -> None:
    raise ImageStoreSilentError("no answer")


async def breaks_off(start: int, stop: int) -> AsyncIterator[bytes]:
    yield b"a part"
    raise ConnectionError(f"a stored image ended {stop - start} bytes early")


async def broken(*_: object) -> StoredImage:
    return StoredImage(100, breaks_off, nothing_to_close)


@pytest.mark.parametrize("fault", [silent, broken])
async def test_a_store_that_does_not_answer_is_not_a_lost_answer(
    surface: Surface, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"prompt": "a boat", "response_format": "b64_json"}
    known = {"Idempotency_Key": "k", "X_Request_Id": ID}
    first = await images(surface, body=asked, **known)
    with monkeypatch.context() as patch:
        patch.setattr(surface.store, "open", fault)
        status, body, response = await images(surface, body=asked, **known)
        assert (status, body["error"]["code"]) == (503, "image_store_unavailable")
        assert "12345 wei" in body["error"]["message"]
        assert int(response.headers["Retry-After"]) >= 1
        status, told = await job(surface)
        assert (status, told["error"]["code"]) == (503, "image_store_unavailable")
    assert (await images(surface, body=asked, **known))[1] == first[1]
    assert (await job(surface))[1]["result"] == first[1]
    assert len(surface.dispatcher.seen) == 1


@pytest.mark.parametrize("fails", ["put", "secure"])
async def test_an_answer_that_no_disk_takes_is_given_once(
    surface: Surface, fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise ImageNotStoredError("the disk is full")

    monkeypatch.setattr(surface.store, fails, fail)
    first = await surface.post(Idempotency_Key="k")
    assert first.status == 200
    url = (await first.json())["images"][0]["url"]
    assert url.startswith("data:image/png;base64,iVBOR" if fails == "put" else surface.url)
    inline = {"prompt": "a boat", "response_format": "b64_json"}
    status, body, _ = await images(surface, body=inline, Idempotency_Key="k-2")
    assert status == 200
    assert body["data"][0]["b64_json"].startswith("iVBOR")
    again = await surface.post(Idempotency_Key="k")
    assert (again.status, (await again.json())["error"]["code"]) == (409, "answer_lost")
    assert len(surface.dispatcher.seen) == 2


async def test_a_stream_cannot_be_kept(surface: Surface) -> None:
    asked = {"prompt": "x", "stream": True}
    for status, body, _ in (
        await images(surface, body=asked, Idempotency_Key="k"),
        await images(surface, body=asked, Prefer=ASYNC),
    ):
        assert (status, body["error"]["param"]) == (400, "stream")


# Later


async def test_an_answer_asked_for_later(surface: Surface) -> None:
    surface.dispatcher.gate.clear()
    accepted = await surface.post(X_Request_Id=ID, Prefer=ASYNC)
    assert accepted.status == 202
    told = await accepted.json()
    assert told == {
        "id": ID,
        "state": "waiting",
        "status_url": f"{surface.url}/jobs/{ID}",
        "events_url": f"{surface.url}/jobs/{ID}/events",
    }
    assert accepted.headers["Location"] == told["status_url"]
    assert accepted.headers["Preference-Applied"] == "respond-async"
    await surface.until(lambda: surface.dispatcher.under_way == 1)
    assert (await job(surface))[1]["state"] == "running"
    assert (await job(surface, key="other"))[0] == 404
    surface.dispatcher.gate.set()
    told = await ended(surface)
    assert (told["state"], told["fee"]) == ("done", "12345")
    async with surface.client.get(told["result"]["images"][0]["url"]) as fetched:
        assert fetched.status == 200
    assert (await job(surface, key="other"))[0] == 404
    assert (await job(surface, method="DELETE"))[0] == 409


def bodies(surface: Surface) -> list[bytes | None]:
    """What the database has of what was asked."""
    with closing(sqlite3.connect(surface.folder.parent / "gateway.db")) as database:
        return [row[0] for row in database.execute("SELECT body FROM promises")]


async def test_no_prompt_outlives_its_job(tmp_path: Path) -> None:
    async with opened(tmp_path) as surface:
        surface.dispatcher.gate.clear()
        await surface.post(X_Request_Id=ID, Prefer=ASYNC)
        await surface.until(lambda: surface.dispatcher.under_way == 1)
        (asked,) = bodies(surface)
        assert asked is not None
        assert b"a boat" in asked
        surface.dispatcher.gate.set()
        await ended(surface)
        await surface.until(lambda: not surface.admission.in_flight)
        assert bodies(surface) == [None]
        # As after a kill between the two.
        with closing(sqlite3.connect(surface.folder.parent / "gateway.db")) as database:
            database.execute("UPDATE promises SET body = ?", (asked,))
            database.commit()
    async with opened(tmp_path) as surface:
        assert bodies(surface) == [None]
        assert not surface.dispatcher.seen


async def test_a_failure_asked_for_later(surface: Surface) -> None:
    surface.dispatcher.failure = ProblemError(problems.budget_exceeded("all spent", 60.0))
    status, _, _ = await images(surface, X_Request_Id=ID, Prefer=ASYNC)
    assert status == 202
    told = await ended(surface)
    assert (told["state"], told["status"]) == ("failed", 402)
    assert told["error"]["code"] == "budget_exceeded"


async def test_without_capacity_it_is_tried_again_by_another_id(surface: Surface) -> None:
    surface.dispatcher.failure = ProblemError(problems.no_capacity(1.0))
    await surface.post(X_Request_Id=ID, Prefer=ASYNC)
    await surface.until(lambda: len(surface.dispatcher.seen) == 1)
    assert (await job(surface))[1]["state"] == "waiting"
    surface.dispatcher.failure = None
    assert (await ended(surface))["state"] == "done"
    assert len({seen[0] for seen in surface.dispatcher.seen}) == len(surface.dispatcher.seen) > 1


async def test_its_lines_name_it_as_its_client_and_the_journal_do(
    surface: Surface, said: io.StringIO
) -> None:
    surface.dispatcher.failure = ProblemError(problems.no_capacity(1.0))
    await surface.post(X_Request_Id=ID, Prefer=ASYNC, Idempotency_Key="k")
    await surface.until(lambda: len(surface.dispatcher.seen) == 1)
    surface.dispatcher.failure = None
    assert (await ended(surface))["state"] == "done"
    again = await surface.post(Idempotency_Key="k")
    lines = [orjson.loads(line) for line in said.getvalue().splitlines()]
    (done,) = [line for line in lines if line["event"] == "job"]
    # Its last try's: the journal has closed the one before.
    assert (done["request_id"], done["job_id"]) == (ID, surface.dispatcher.seen[-1][0])
    told = lines[-1]
    assert (told["event"], told["request_id"]) == ("request", again.headers["X-Request-Id"])
    assert told["job_id"] == again.headers["Limner-Job-Id"] == done["job_id"]


async def test_a_repeat_takes_the_answer_as_it_prefers(surface: Surface) -> None:
    surface.dispatcher.gate.clear()
    await surface.post(X_Request_Id=ID, Idempotency_Key="k", Prefer=ASYNC)
    waiting = asyncio.ensure_future(surface.post(Idempotency_Key="k"))
    later = await surface.post(Idempotency_Key="k", Prefer=ASYNC)
    assert (later.status, (await later.json())["id"]) == (202, ID)
    surface.dispatcher.gate.set()
    assert (await waiting).status == 200
    later = await surface.post(Idempotency_Key="k", Prefer=ASYNC)
    assert (later.status, (await later.json())["state"]) == (202, "done")
    assert len(surface.dispatcher.seen) == 1


async def test_a_job_that_failed_for_a_passing_reason_can_be_asked_again(
    surface: Surface,
) -> None:
    surface.dispatcher.failure = ProblemError(problems.rate_limited(1.0))
    await surface.post(X_Request_Id=ID, Idempotency_Key="k", Prefer=ASYNC)
    assert (await ended(surface))["state"] == "failed"
    # By another name beside it, by the same name in its place.
    answer = await surface.post(X_Request_Id=ID + "-2", Idempotency_Key="k", Prefer=ASYNC)
    assert answer.status == 202
    assert (await ended(surface, ID + "-2"))["state"] == "failed"
    assert (await job(surface))[1]["state"] == "failed"
    surface.dispatcher.failure = None
    again = await surface.post(X_Request_Id=ID + "-2", Idempotency_Key="k")
    assert again.status == 200
    assert "Idempotency-Replayed" not in again.headers
    assert (await ended(surface, ID + "-2"))["state"] == "done"


async def test_an_id_that_is_kept_cannot_be_taken_again(surface: Surface) -> None:
    assert (await surface.post(X_Request_Id=ID, Prefer=ASYNC)).status == 202
    await ended(surface)
    again = await surface.post(X_Request_Id=ID, Idempotency_Key="k")
    assert (again.status, (await again.json())["error"]["code"]) == (400, "request_id_in_use")


async def test_jobs_are_bounded_by_key_and_hold_places(tmp_path: Path) -> None:
    jobs = JobSettings(max_async_per_key=2, max_async=3)
    async with opened(tmp_path, jobs, total=4) as surface:
        surface.dispatcher.gate.clear()
        statuses = [(await surface.post(Prefer=ASYNC)).status for _ in range(3)]
        assert statuses == [202, 202, 429]
        statuses = [(await surface.post(key="other", Prefer=ASYNC)).status for _ in range(2)]
        assert statuses == [202, 503]
        assert surface.admission.in_flight == 3


async def test_a_keys_own_places_do_not_lift_the_bound_of_jobs(tmp_path: Path) -> None:
    jobs = JobSettings(max_async_per_key=2)
    async with opened(tmp_path, jobs) as surface:
        surface.dispatcher.gate.clear()
        statuses = [(await surface.post(key="many", Prefer=ASYNC)).status for _ in range(3)]
        assert statuses == [202, 202, 429]


async def test_a_key_with_many_places_may_wait_for_as_many_kept_answers(tmp_path: Path) -> None:
    async with (
        opened(tmp_path, server={"max_in_flight_per_key": 1}) as surface,
        asyncio.TaskGroup() as group,
    ):
        surface.dispatcher.gate.clear()
        asking = [
            group.create_task(surface.post(key="many", Idempotency_Key=f"k{number}"))
            for number in range(3)
        ]
        await surface.until(
            lambda: surface.dispatcher.under_way == 3 or any(one.done() for one in asking)
        )
        surface.dispatcher.gate.set()
    assert [one.result().status for one in asking] == [200, 200, 200]


async def test_a_preference_that_is_not_known_changes_nothing(surface: Surface) -> None:
    assert (await surface.post(Prefer="handling=lenient")).status == 200
    answer = await surface.post(Prefer="wait=5, Respond-Async; x=1")
    assert answer.status == 202


async def test_events_of_a_job_and_after_it(surface: Surface) -> None:
    surface.dispatcher.gate.clear()
    await surface.post(X_Request_Id=ID, Prefer=ASYNC)
    url, own = f"{surface.url}/jobs/{ID}/events", {"Authorization": "Bearer good"}
    asyncio.get_running_loop().call_later(0.1, surface.dispatcher.gate.set)
    async with surface.client.get(url, headers=own) as events:
        assert (await events.read()).endswith(b"event: over\ndata: {}\n\n")
    assert (await ended(surface))["state"] == "done"
    async with surface.client.get(url, headers=own) as events:
        assert await events.read() == b"event: over\ndata: {}\n\n"


# Cancelled


async def test_delete_ends_a_request_that_somebody_waits_for(surface: Surface) -> None:
    surface.dispatcher.gate.clear()
    waiting = asyncio.ensure_future(surface.post(X_Request_Id=ID))
    await surface.until(lambda: surface.dispatcher.under_way == 1)
    assert (await job(surface, method="DELETE", key="other"))[0] == 404
    assert await job(surface, method="DELETE") == (200, {"id": ID, "state": "cancelled"})
    answer = await waiting
    assert (answer.status, (await answer.json())["error"]["code"]) == (409, "cancelled")
    assert surface.dispatcher.cancelled == 1
    assert surface.admission.in_flight == 0
    assert (await job(surface, method="DELETE"))[0] == 404


@pytest.mark.parametrize("prefer", [ASYNC, ""])
async def test_delete_ends_a_job_for_all_who_wait(surface: Surface, prefer: str) -> None:
    surface.dispatcher.gate.clear()
    first = asyncio.ensure_future(
        surface.post(X_Request_Id=ID, Idempotency_Key="k", Prefer=prefer)
    )
    await surface.until(lambda: surface.dispatcher.under_way == 1)
    assert await job(surface, method="DELETE") == (200, {"id": ID, "state": "cancelled"})
    assert surface.dispatcher.cancelled == 1
    assert (await first).status == (202 if prefer == ASYNC else 409)
    assert (await ended(surface))["state"] == "cancelled"
    assert (await job(surface, method="DELETE"))[0] == 409


async def test_delete_of_events_is_no_method(surface: Surface) -> None:
    assert (await job(surface, f"{ID}/events", method="DELETE"))[0] == 405


# After a restart


async def test_what_was_kept_is_kept_over_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path, public_url="https://here") as surface:
        first = await (await surface.post(Idempotency_Key="k")).text()
        await surface.post(X_Request_Id=ID, Prefer=ASYNC)
        told = await ended(surface)
    async with opened(tmp_path, public_url="https://here") as surface:
        again = await surface.post(Idempotency_Key="k")
        assert again.headers["Idempotency-Replayed"] == "true"
        assert await again.text() == first
        assert await ended(surface) == told
        assert not surface.dispatcher.seen


async def test_a_job_cut_off_runs_again_and_a_request_only_when_repeated(tmp_path: Path) -> None:
    async with opened(tmp_path) as surface:
        surface.dispatcher.gate.clear()
        await surface.post(X_Request_Id=ID, Idempotency_Key="later", Prefer=ASYNC)
        lost = asyncio.ensure_future(surface.post({"prompt": "x"}, Idempotency_Key="now"))
        await surface.until(lambda: surface.dispatcher.under_way == 2)
        lost.cancel()
        surface.forsake()
    async with opened(tmp_path) as surface:
        assert (await ended(surface))["state"] == "done"
        assert len(surface.dispatcher.seen) == 1
        for key, prompt in (("later", "a boat"), ("now", "x")):
            answer = await surface.post({"prompt": prompt}, Idempotency_Key=key)
            assert answer.status == 200
            assert ("Idempotency-Replayed" in answer.headers) == (key == "later")
        assert len(surface.dispatcher.seen) == 2


async def test_a_job_of_a_key_that_is_dead_by_now_is_not_run(tmp_path: Path) -> None:
    async with opened(tmp_path) as surface:
        surface.dispatcher.gate.clear()
        await surface.post(X_Request_Id=ID, Prefer=ASYNC)
        surface.forsake()
    async with opened(tmp_path, dead_keys=("k1",)) as surface:
        told = await ended(surface)
        assert (told["state"], told["status"]) == ("failed", 401)
        assert not surface.dispatcher.seen


@pytest.mark.parametrize(("prefer", "route"), [("", "kept"), (ASYNC, "job")])
async def test_a_refusal_is_told_from_that_of_the_job_it_waits_for(
    surface: Surface, prefer: str, route: str
) -> None:
    surface.dispatcher.failure = ProblemError(problems.budget_exceeded("all spent", 60.0))
    await surface.post(X_Request_Id=ID, Idempotency_Key="k", Prefer=prefer)
    counted = f'code="budget_exceeded",route="{route}",status="402"'

    async def is_counted() -> bool:
        return counted in (await surface.metrics.render()).decode()

    await until_async(is_counted)
