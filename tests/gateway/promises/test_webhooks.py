"""Webhooks come at least once, signed, however often their receiver fails or the gateway ends."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.config import JobSettings
from gateway.promises.courier import pauses
from gateway.promises.signing import key_secret, shown_secret
from gateway.storage.store import ImageStoreSilentError
from network.errors import ProblemError
from network.runtime import log
from network.wire import problems
from tests.gateway.api.surface import MASTER, Surface, open_surface
from tests.gateway.promises.receiver import receiving
from tests.gateway.waiting import until, until_async

ID = "0123456789abcdef-own"
#: Of the key "good", which has the id k1.
SECRET = shown_secret(key_secret(MASTER, "k1"))


def jobs(**changes: object) -> JobSettings:
    known = {"private_webhooks": True, "webhook_first_pause_seconds": 0.02}
    return JobSettings.model_validate({**known, "webhook_timeout_seconds": 0.3, **changes})


@asynccontextmanager
async def opened(folder: Path, settings: JobSettings) -> AsyncIterator[Surface]:
    async with open_surface(folder / "images", keeps=settings) as surface:
        yield surface


async def ask(surface: Surface, url: str, name: str = ID) -> None:
    answer = await surface.post(Prefer="respond-async", Limner_Webhook=url, X_Request_Id=name)
    assert answer.status == 202, await answer.text()


async def job(surface: Surface, name: str = ID) -> object:
    async with surface.client.get(
        f"{surface.url}/jobs/{name}", headers={"Authorization": "Bearer good"}
    ) as response:
        return await response.json()


async def nothing_is_owed(surface: Surface) -> None:
    """Return when the job has ended, and its webhook is not to be told any more."""
    assert surface.kept is not None
    store = surface.kept.store

    async def is_through() -> bool:
        (kept,) = await store.find("k1", name=ID)
        return kept.fulfilment is not None and kept.promise.webhook is None

    await until_async(is_through)


async def test_a_webhook_is_told_what_the_job_would_answer(tmp_path: Path) -> None:
    async with receiving(SECRET) as receiver, opened(tmp_path, jobs()) as surface:
        await ask(surface, receiver.url + "/hook?token=hidden")
        await until(lambda: bool(receiver.told))
        (told,) = receiver.told
        assert told.is_signed
        assert told.body == await job(surface)
        assert told.body["state"] == "done"
        await nothing_is_owed(surface)


async def test_a_webhook_waits_for_an_image_store_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def silent(*_: object) -> None:
        nonlocal asked
        asked += 1
        raise ImageStoreSilentError("no answer")

    async with receiving(SECRET) as receiver, opened(tmp_path, jobs()) as surface:
        with monkeypatch.context() as patch:
            patch.setattr(surface.store, "open", silent)
            body = {"prompt": "a boat", "response_format": "b64_json"}
            headers = {"Prefer": "respond-async", "Limner-Webhook": receiver.url}
            async with surface.client.post(
                f"{surface.url}/v1/images/generations",
                json=body,
                headers={**headers, "Authorization": "Bearer good"},
            ) as answer:
                assert answer.status == 202
            await until(lambda: asked > 1)
        await until(lambda: bool(receiver.told))
        (told,) = receiver.told
        assert told.body["result"]["data"][0]["b64_json"].startswith("iVBOR")


async def test_a_failure_and_a_cancellation_are_told_too(tmp_path: Path) -> None:
    async with receiving(SECRET) as receiver, opened(tmp_path, jobs()) as surface:
        surface.dispatcher.failure = ProblemError(problems.bad_request("no such thing"))
        await ask(surface, receiver.url)
        surface.dispatcher.gate.clear()
        other = ID + "-2"
        await ask(surface, receiver.url, other)
        await until(lambda: surface.dispatcher.under_way == 1)
        async with surface.client.delete(
            f"{surface.url}/jobs/{other}", headers={"Authorization": "Bearer good"}
        ) as answer:
            assert answer.status == 200
        await until(lambda: len(receiver.told) == 2)
        states = {told.body["id"]: told.body["state"] for told in receiver.told}
        assert states == {ID: "failed", other: "cancelled"}
        assert all(told.is_signed for told in receiver.told)


async def test_a_receiver_that_fails_is_told_again_by_the_same_id(tmp_path: Path) -> None:
    async with receiving(SECRET) as receiver, opened(tmp_path, jobs()) as surface:
        # Redirects are not followed. 0 is an answer that never ends, of which only the head is read.
        receiver.script.extend([500, 302, 307, 404, 0])
        await ask(surface, receiver.url)
        await nothing_is_owed(surface)
        assert len(receiver.told) == 5
        assert all(told.is_signed for told in receiver.told)
        assert len({told.message_id for told in receiver.told}) == 1
        assert {told.path for told in receiver.told} == {"/"}


async def test_a_receiver_that_hangs_holds_few_posts_and_nobody_elses(tmp_path: Path) -> None:
    patient = jobs(webhook_timeout_seconds=20)
    async with receiving(SECRET) as receiver, opened(tmp_path, patient) as surface:
        receiver.gate = asyncio.Event()
        for number in range(8):
            await ask(surface, receiver.url, f"{ID}-{number}")
        await until(lambda: receiver.waiting == 4)
        async with receiving(shown_secret(key_secret(MASTER, "k2"))) as others:
            answer = await surface.post(
                key="other", Prefer="respond-async", Limner_Webhook=others.url
            )
            assert answer.status == 202
            await until(lambda: bool(others.told))
        assert receiver.waiting == 4
        receiver.gate.set()
        await until(lambda: len(receiver.told) == 8)


async def test_what_was_not_told_is_told_after_a_restart(tmp_path: Path) -> None:
    async with receiving(SECRET) as receiver:
        slow = jobs(webhook_first_pause_seconds=3600)
        async with opened(tmp_path, slow) as surface:
            receiver.script.append(503)
            await ask(surface, receiver.url)
            await until(lambda: len(receiver.told) == 1)
        async with opened(tmp_path, slow) as surface:
            await until(lambda: len(receiver.told) == 2)
            await nothing_is_owed(surface)
        async with opened(tmp_path, slow) as surface:
            await nothing_is_owed(surface)
    assert receiver.told[0] == receiver.told[1]
    assert len(receiver.told) == 2


@pytest.mark.parametrize("status", [410, 503])
async def test_it_is_given_up_when_gone_or_after_its_time(tmp_path: Path, status: int) -> None:
    settings = jobs() if status == 410 else jobs(webhook_give_up_seconds=0.05)
    async with receiving(SECRET) as receiver, opened(tmp_path, settings) as surface:
        receiver.script.extend([status] * 1000)
        await ask(surface, receiver.url)
        await nothing_is_owed(surface)
        assert 1 <= len(receiver.told) < 10


async def test_a_webhook_into_a_private_network_is_refused_or_never_reached(
    tmp_path: Path,
) -> None:
    closed = jobs(private_webhooks=False, webhook_give_up_seconds=0.05)
    async with receiving(SECRET) as receiver, opened(tmp_path, closed) as surface:
        port = receiver.url.rpartition(":")[2]
        for url in (receiver.url, f"https://127.0.0.1:{port}", f"https://[::1]:{port}"):
            answer = await surface.post(Prefer="respond-async", Limner_Webhook=url)
            assert answer.status == 400
            assert (await answer.json())["error"]["param"] == "Limner-Webhook"
        await ask(surface, f"https://localhost:{port}/")
        await nothing_is_owed(surface)
        assert not receiver.told


async def test_a_webhook_goes_with_later_answers_only(tmp_path: Path) -> None:
    async with opened(tmp_path, jobs()) as surface:
        answer = await surface.post(Limner_Webhook="https://example.org/", Idempotency_Key="k")
        assert (answer.status, len(surface.dispatcher.seen)) == (400, 0)


@pytest.mark.parametrize("first", ["/hook", None])
async def test_a_repeat_may_not_name_another_webhook(tmp_path: Path, first: str | None) -> None:
    async with receiving(SECRET) as receiver, opened(tmp_path, jobs()) as surface:

        async def post(path: str | None) -> tuple[int, str]:
            headers = {
                "Authorization": "Bearer good",
                "Prefer": "respond-async",
                "Idempotency-Key": "k",
                "X-Request-Id": ID,
            }
            if path is not None:
                headers["Limner-Webhook"] = receiver.url + path
            url, body = f"{surface.url}/v1/images/generations", {"prompt": "a boat"}
            async with surface.client.post(url, json=body, headers=headers) as answer:
                told = await answer.json()
                return answer.status, told["error"]["code"] if "error" in told else ""

        surface.dispatcher.gate.clear()
        assert await post(first) == (202, "")
        for _ in ("while it is under way", "after its webhook was told"):
            assert await post("/other") == (422, "idempotency_key_reused")
            assert await post(first) == await post(None) == (202, "")
            surface.dispatcher.gate.set()
            await nothing_is_owed(surface)
        assert len(receiver.told) == (0 if first is None else 1)


async def test_no_log_has_a_webhooks_address(tmp_path: Path) -> None:
    said = io.StringIO()
    log.configure("debug", "json", said)
    async with receiving(SECRET) as receiver, opened(tmp_path, jobs()) as surface:
        receiver.script.append(500)
        await ask(surface, receiver.url + "/hidden-path?token=hidden-token")
        await nothing_is_owed(surface)
    assert '"webhook"' in said.getvalue()
    assert "hidden" not in said.getvalue()
    assert "a boat" not in said.getvalue()


def test_pauses_grow_to_an_hour() -> None:
    growing = pauses(5.0)
    seen = [next(growing) for _ in range(12)]
    assert seen[:3] == [5.0, 15.0, 45.0]
    assert seen == sorted(seen)
    assert seen[-1] == 3600.0
