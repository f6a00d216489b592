"""A gateway whose operator's own service knows keys: from the bearer to the books."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from gateway.config import GatewaySettings
from gateway.home import open_gateway_database, open_usage_journal
from gateway.keys import list_keys, revoke_key
from network.runtime import log
from network.runtime.clock import SystemClock
from tests.gateway.access.key_service import SECRET, KeyService, serving_keys
from tests.gateway.stub_orchestrator import StubModel, StubOrchestrator, running
from tests.gateway.test_app import BODY, Stage, serving, settings_for
from tests.gateway.waiting import until, until_async

FEE = 64 * 64
TOKEN = "sk-alice-7f3a"


@dataclass
class Open:
    """A gateway, the service that it asks, and the orchestrator that it buys from."""

    stage: Stage
    service: KeyService
    stub: StubOrchestrator
    settings: GatewaySettings

    async def ask(
        self, bearer: str, path: str = "/text-to-image", **head: str
    ) -> tuple[int, Any, Any]:
        sent = {"Authorization": f"Bearer {bearer}", **head}
        made = path == "/text-to-image"
        async with self.stage.client.request(
            "POST" if made else "GET",
            self.stage.gateway.url + path,
            json=BODY if made else None,
            headers=sent,
        ) as response:
            return response.status, orjson.loads(await response.read()), response.headers


@asynccontextmanager
async def placed(
    folder: Path, service: KeyService | None = None, hook: Any = None, **others: Any
) -> AsyncIterator[tuple[KeyService, StubOrchestrator, GatewaySettings]]:
    """All that a gateway needs, and its settings."""
    async with (
        running(StubOrchestrator({"m": StubModel(), "dear": StubModel()})) as stub,
        serving_keys(service or KeyService({TOKEN: {"auth_id": "alice"}})) as asked,
    ):
        webhook = {"url": asked.url, "secret": SECRET, "timeout_seconds": 5, **(hook or {})}
        yield asked, stub, settings_for(folder, stub.uri, auth_webhook=webhook, **others)


@asynccontextmanager
async def opened(
    folder: Path, service: KeyService | None = None, hook: Any = None, **others: Any
) -> AsyncIterator[Open]:
    async with (
        placed(folder, service, hook, **others) as (asked, stub, settings),
        serving(settings) as stage,
    ):
        yield Open(stage, asked, stub, settings)


async def test_a_key_of_the_service_makes_images_and_is_in_the_books_by_its_name(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as gateway:
        answers = [await gateway.ask(TOKEN) for _ in range(3)]
        assert [status for status, *_ in answers] == [200] * 3
        assert gateway.service.asked == [TOKEN]
        _, told, _ = await gateway.ask(TOKEN, "/key")
        assert (told["id"], told["name"]) == ("auth:alice", "alice")
        assert told["spent_today_wei"] == str(3 * FEE)
        status = await gateway.stage.status()
        assert status["access"]["auth_webhook"] == {
            "is_away": False,
            "problem": "",
            "known": 1,
            "asking": 0,
        }
        settings = gateway.settings
    async with (
        open_gateway_database(settings) as database,
        open_usage_journal(settings, database) as journal,
    ):
        totals = await journal.usage("key")
    assert [(one.group, one.requests) for one in totals] == [("auth:alice", 3)]


async def test_keys_of_the_gateway_are_shown_to_nobody(tmp_path: Path) -> None:
    async with opened(tmp_path) as gateway:
        own = gateway.stage.key
        assert (await gateway.ask(own))[0] == 200
        async with open_gateway_database(gateway.settings) as database:
            (record,) = await list_keys(database)
            await revoke_key(database, SystemClock(), record.grant.key_id)

        async def is_refused() -> bool:
            return (await gateway.ask(own, "/key"))[0] == 401

        await until_async(is_refused)
        assert (await gateway.ask("limner_0123456789ab_" + "A" * 43))[0] == 401
        assert gateway.service.asked == []


async def test_the_service_may_decide_alone(tmp_path: Path) -> None:
    async with opened(tmp_path, hook={"asked": "always"}) as gateway:
        assert (await gateway.ask(TOKEN))[0] == 200
        status, told, _ = await gateway.ask(gateway.stage.key)
        assert (status, told["error"]["message"]) == (401, "nobody has this key")
        assert gateway.service.asked == [TOKEN, gateway.stage.key]


async def test_refusals_come_with_the_services_reason(tmp_path: Path) -> None:
    service = KeyService(
        {
            "unpaid": {"status": 483, "reason": "the account of ann is empty"},
            "banned": {"status": 403, "reason": "bob may not use this gateway"},
        }
    )
    async with opened(tmp_path, service) as gateway:
        status, told, head = await gateway.ask("nobody")
        assert (status, told["error"]["code"]) == (401, "invalid_api_key")
        assert told["error"]["message"] == told["detail"]["msg"] == "nobody has this key"
        assert head["WWW-Authenticate"] == "Bearer"
        status, told, head = await gateway.ask("unpaid")
        assert (status, told["error"]["message"]) == (402, "the account of ann is empty")
        assert head["Retry-After"]
        status, told, _ = await gateway.ask("banned", "/v1/models")
        assert (status, told["error"]["message"]) == (403, "bob may not use this gateway")
        assert gateway.stub.delivered == 0


async def test_limits_of_the_service_hold_for_all_bearers_of_one_name(tmp_path: Path) -> None:
    busy = {"auth_id": "busy", "limits": {"requests_per_minute": 3}}
    poor = {"auth_id": "poor", "limits": {"wei_per_day": str(2 * FEE)}}
    choosy = {"auth_id": "choosy", "limits": {"models": ["dear"], "max_price": "1/2"}}
    service = KeyService({"b1": busy, "b2": busy, "p1": poor, "p2": poor, "c": choosy})
    async with opened(tmp_path, service) as gateway:
        answers = [await gateway.ask(bearer) for bearer in ("b1", "b2", "b1", "b2")]
        assert [status for status, *_ in answers] == [200, 200, 200, 429]
        assert answers[0][2]["RateLimit-Limit"] == "3"
        answers = [await gateway.ask(bearer) for bearer in ("p1", "p2", "p1")]
        assert [status for status, *_ in answers] == [200, 200, 402]
        assert f"may spend {2 * FEE} wei in a day" in answers[2][1]["error"]["message"]
        assert (await gateway.ask("c"))[0] == 403
        _, models, _ = await gateway.ask("c", "/v1/models")
        assert [one["id"] for one in models["data"]] == ["dear"]
        assert models["data"][0]["limner"]["available"] is False


async def test_a_budget_counts_what_was_spent_before_a_restart(tmp_path: Path) -> None:
    poor = KeyService({TOKEN: {"auth_id": "poor", "limits": {"wei_per_day": FEE}}})
    async with placed(tmp_path, poor) as (service, stub, settings):
        for expected in (200, 402):
            async with serving(settings) as stage:
                gateway = Open(stage, service, stub, settings)
                assert (await gateway.ask(TOKEN))[0] == expected


async def test_while_the_service_is_away_known_keys_work_and_others_are_told_why(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, hook={"cache_seconds": 0.2}) as gateway:
        assert (await gateway.ask(TOKEN))[0] == 200
        gateway.service.behaviour = "crash"
        await asyncio.sleep(0.25)
        for _ in range(10):
            assert (await gateway.ask(TOKEN))[0] == 200
        for number in range(10):
            status, told, head = await gateway.ask(f"sk-{number}")
            assert (status, told["error"]["code"]) == (503, "authentication_unavailable")
            assert "it answered 500" in told["error"]["message"]
            assert int(head["Retry-After"]) >= 1
        # An own key needs nobody.
        assert (await gateway.ask(gateway.stage.key))[0] == 200


async def test_an_own_key_waits_for_no_question_under_way(tmp_path: Path) -> None:
    async with opened(tmp_path) as gateway:
        gateway.service.gate.clear()
        waiting = asyncio.create_task(gateway.ask(TOKEN))
        await until(lambda: len(gateway.service.asked) == 1)
        assert (await gateway.ask(gateway.stage.key))[0] == 200
        gateway.service.gate.set()
        assert (await waiting)[0] == 200


async def test_a_client_that_leaves_while_it_is_asked_about_breaks_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as gateway:
        gateway.service.gate.clear()
        leaving = asyncio.create_task(gateway.ask(TOKEN))
        await until(lambda: len(gateway.service.asked) == 1)
        leaving.cancel()
        await asyncio.wait([leaving])
        staying = asyncio.create_task(gateway.ask(TOKEN))
        await asyncio.sleep(0.05)
        gateway.service.gate.set()
        assert (await staying)[0] == 200
        assert gateway.service.asked == [TOKEN]


async def test_no_bearer_and_no_secret_is_ever_written(tmp_path: Path) -> None:
    stream = io.StringIO()
    log.configure("debug", "json", stream)
    async with opened(tmp_path) as gateway:
        await gateway.ask(TOKEN, **{"Idempotency-Key": "one"})
        await gateway.ask("sk-refused-1234")
        gateway.service.behaviour = "drop"
        await gateway.ask("sk-unlucky-5678")
        url = gateway.service.url
    assert "auth_webhook_fails" in stream.getvalue()
    written = await asyncio.to_thread(_everything_in, tmp_path)
    assert b"auth:alice" in written
    for secret in (TOKEN, "sk-refused-1234", "sk-unlucky-5678", SECRET, url):
        assert secret not in stream.getvalue()
        assert secret.encode() not in written


def _everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_beside_an_anonymous_tier_a_wrong_key_is_still_asked_about(tmp_path: Path) -> None:
    tier = {"enabled": True, "requests_per_minute": 5}
    async with opened(tmp_path, anonymous=tier) as gateway:
        for bearer in ("", "anonymous"):
            status, told, _ = await gateway.ask(bearer, "/key")
            assert (status, told["id"]) == (200, "anonymous")
        assert gateway.service.asked == []
        assert (await gateway.ask("wrong"))[0] == 401
        assert gateway.service.asked == ["wrong"]
        async with gateway.stage.client.post(
            f"{gateway.stage.gateway.url}/text-to-image", json=BODY
        ) as response:
            assert response.status == 200


async def test_a_job_whose_key_cannot_be_asked_about_ends_with_a_restart_at_no_charge(
    tmp_path: Path,
) -> None:
    name = "a-job-before-the-restart"
    async with placed(tmp_path) as (service, stub, settings):
        stub.script.append("hang")
        async with serving(settings) as stage:
            gateway = Open(stage, service, stub, settings)
            head = {"Prefer": "respond-async", "X-Request-Id": name}
            assert (await gateway.ask(TOKEN, **head))[0] == 202
            await until(lambda: stub.under_way == 1)
        async with serving(settings) as stage:
            gateway = Open(stage, service, stub, settings)
            status, told, _ = await gateway.ask(TOKEN, f"/jobs/{name}")
            assert (status, told["state"], told["status"]) == (200, "failed", 401)
        assert stub.delivered == 0


async def test_official_clients_get_the_reason(tmp_path: Path) -> None:
    async with opened(tmp_path) as gateway, aiohttp.ClientSession() as client:
        async with client.post(
            f"{gateway.stage.gateway.url}/v1/images/generations",
            json={"prompt": "a boat", "model": "m", "size": "64x64"},
            headers={"Authorization": "Bearer sk-wrong"},
        ) as response:
            told = await response.json()
        assert (response.status, told["error"]["message"]) == (401, "nobody has this key")
