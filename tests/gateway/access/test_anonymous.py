"""A public free gateway: whoever shows no key is served, within limits by address and over all."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.access.access import Access
from gateway.access.opening import new_tier
from gateway.config import GatewaySettings
from gateway.home import open_gateway_database, open_usage_journal
from gateway.keys import KeyRing
from network.errors import ConfigError
from network.runtime.clock import SystemClock
from network.runtime.settings import load
from tests.gateway.stub_orchestrator import StubModel, StubOrchestrator, running
from tests.gateway.test_app import BODY, Stage, serving, settings_for
from tests.gateway.waiting import until, until_async

FEE = 64 * 64
ALICE, BOB = "198.51.100.1", "198.51.100.2"


def free(folder: Path, uri: str, server: dict[str, Any] | None = None, **tier: object) -> Any:
    """One setting, behind a proxy on this machine: so that a test can come from any address."""
    proxied = {"trusted_proxies": ["127.0.0.1"], "shutdown_seconds": 0.3, **(server or {})}
    return settings_for(folder, uri, server=proxied, anonymous={"enabled": True, **tier})


class Answer:
    """One that was read."""

    def __init__(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body: Any = json.loads(body)

    @property
    def code(self) -> str:
        return str(self.body["error"]["code"])

    @property
    def message(self) -> str:
        return str(self.body["error"]["message"])


class Public:
    """A gateway as people without a key see it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    async def ask(
        self,
        path: str = "/text-to-image",
        address: str = ALICE,
        *,
        method: str = "",
        body: dict[str, object] | None = None,
        head: Mapping[str, str] | None = None,
    ) -> Answer:
        """POST the usual request, or GET another path."""
        sent = {"X-Forwarded-For": address, **(head or {})}
        posts = path == "/text-to-image"
        async with self.stage.client.request(
            method or ("POST" if posts else "GET"),
            self.stage.gateway.url + path,
            json={**BODY, **(body or {})} if posts else None,
            headers=sent,
        ) as response:
            return Answer(response, await response.read())


@asynccontextmanager
async def opened(
    folder: Path,
    stub: StubOrchestrator,
    server: dict[str, Any] | None = None,
    **tier: object,
) -> AsyncIterator[Public]:
    async with running(stub), serving(free(folder, stub.uri, server, **tier)) as stage:
        yield Public(stage)


def a_stub(**fields: Any) -> StubOrchestrator:
    return StubOrchestrator({"m": StubModel()}, **fields)


async def test_without_the_setting_everybody_needs_a_key(tmp_path: Path) -> None:
    async with running(a_stub()) as stub, serving(settings_for(tmp_path, stub.uri)) as stage:
        public = Public(stage)
        for headers in ({}, {"Authorization": "Bearer anonymous"}, {"Authorization": "Bearer"}):
            answer = await public.ask(head=headers)
            assert (answer.status, answer.code) == (401, "invalid_api_key")
        assert (await stage.post()).status == 200


async def test_one_setting_serves_those_without_a_key(tmp_path: Path) -> None:
    async with opened(tmp_path, a_stub()) as public:
        answer = await public.ask()
        assert answer.status == 200, answer.body
        assert answer.headers["RateLimit-Limit"] == "10"
        assert answer.headers["RateLimit-Remaining"] == "9"
        assert answer.headers["Limner-Fee"] == str(FEE)
        assert (await public.ask("/v1/models")).body["data"][0]["id"] == "m"
        # Whoever has a key is who the key says.
        assert "RateLimit-Limit" not in (await public.stage.post()).headers


async def test_a_key_that_is_not_good_is_never_quietly_anonymous(tmp_path: Path) -> None:
    wrong = (
        "Bearer limner_0123456789ab_" + "A" * 43,
        "Bearer sk-something",
        "Bearer Anonymous",
        "Basic YTpi",
        "anonymous",
    )
    async with opened(tmp_path, a_stub()) as public:
        for header in wrong:
            answer = await public.ask(head={"Authorization": header})
            assert (answer.status, answer.code) == (401, "invalid_api_key"), header
            assert (await public.ask("/v1/models", head={"Authorization": header})).status == 401
        # What clients send who cannot do without the header.
        for header in ("Bearer anonymous", "Bearer", "Bearer "):
            assert (await public.ask("/key", head={"Authorization": header})).body[
                "id"
            ] == "anonymous"


async def test_each_address_has_its_own_count(tmp_path: Path) -> None:
    async with opened(tmp_path, a_stub(), requests_per_minute=2) as public:
        answers = [await public.ask() for _ in range(3)]
        assert [one.status for one in answers] == [200, 200, 429]
        refused = answers[-1]
        assert "Your address may use 2 requests a minute" in refused.message
        assert 1 <= int(refused.headers["Retry-After"]) <= 30
        assert refused.headers["RateLimit-Remaining"] == "0"
        assert (await public.ask(address=BOB)).status == 200
        # What a client writes in front of what the proxy adds changes nothing.
        assert (await public.ask(address=f"{BOB}, {ALICE}")).status == 429
        # A subscriber of IPv6 has more addresses than there are seconds.
        v6 = [await public.ask(address=f"2001:db8:1:2::{n:x}") for n in (1, 2, 0xFFFF)]
        assert [one.status for one in v6] == [200, 200, 429]
        assert (await public.ask(address="2001:db8:1:3::1")).status == 200


async def test_nobody_but_a_trusted_proxy_names_another_address(tmp_path: Path) -> None:
    server = {"trusted_proxies": ["10.0.0.0/8"]}
    async with opened(tmp_path, a_stub(), server, requests_per_minute=1) as public:
        assert (await public.ask(address=ALICE)).status == 200
        assert (await public.ask(address=BOB)).status == 429


async def test_pixels_and_steps_are_bounded(tmp_path: Path) -> None:
    async with opened(tmp_path, a_stub(), pixels_per_minute=3 * FEE, max_steps=8) as public:
        many = await public.ask(body={"num_images_per_prompt": 4})
        assert (many.status, many.code) == (400, "above_rate_limit")
        assert (await public.ask(body={"num_images_per_prompt": 3})).status == 200
        again = await public.ask()
        assert again.status == 429
        assert "Your address may use 12288 pixels a minute" in again.message
        assert (await public.ask(address=BOB)).status == 200
        long = await public.ask(address=BOB, body={"num_inference_steps": 9})
        assert (long.status, long.code) == (403, "permission_denied")
        assert "may ask for 8 steps" in long.message
        quote = {"Idempotency-Key": "k"}
        kept = await public.ask(address=BOB, body={"num_inference_steps": 9}, head=quote)
        assert (kept.status, kept.code) == (403, "permission_denied")


async def test_places_are_counted_by_address_and_over_all(tmp_path: Path) -> None:
    stub = a_stub(capacity=8)
    stub.script.extend(["hang"] * 3)
    async with opened(tmp_path, stub, max_in_flight=2, total_in_flight=3) as public:
        async with asyncio.TaskGroup() as group:
            held = [
                group.create_task(public.ask(address=address)) for address in (ALICE, ALICE, BOB)
            ]
            await until(lambda: stub.under_way == 3)
            mine = await public.ask()
            assert mine.status == 429
            assert "The anonymous tier already has 3" in mine.message
            held[2].cancel()
            await until_async(lambda: _in_flight(public.stage, 2))
            mine = await public.ask()
            assert mine.status == 429
            assert "Your address already has 2 requests under way" in mine.message
            assert (await public.ask(address=BOB)).status == 200
            for one in held:
                one.cancel()
        await until_async(public.stage.is_idle)
        assert (await public.ask()).status == 200


async def _in_flight(stage: Stage, count: int) -> bool:
    return bool((await stage.status())["in_flight"] == count)


async def test_the_budget_of_a_day_is_for_all_of_them_and_survives_a_restart(
    tmp_path: Path,
) -> None:
    async with running(a_stub()) as stub:
        settings = free(tmp_path, stub.uri, wei_per_day=2 * FEE)
        async with serving(settings) as stage:
            public = Public(stage)
            addresses = (ALICE, BOB, "198.51.100.3")
            answers = [await public.ask(address=address) for address in addresses]
            assert [one.status for one in answers] == [200, 200, 402]
            assert f"The anonymous tier may spend {2 * FEE} wei in a day" in answers[2].message
            assert 0 < int(answers[2].headers["Retry-After"]) <= 86_400
            told = (await public.ask("/key")).body
            assert (told["name"], told["left_wei"]) == ("anonymous", "0")
            # A key of one's own is another purse.
            assert (await stage.post()).status == 200
        async with serving(settings) as stage:
            assert (await Public(stage).ask(address=ALICE)).status == 402


async def test_the_budget_may_be_in_dollars(tmp_path: Path) -> None:
    # At 1000 dollars for 10**18 wei, one image is 4096 of the 10**-15 dollars that a wei is.
    async with running(a_stub()) as stub:
        tier = {"enabled": True, "usd_per_day": "0.000000000005 usd"}
        settings = settings_for(tmp_path, stub.uri, anonymous=tier, usd_per_eth="1000")
        async with serving(settings) as stage:
            public = Public(stage)
            assert [(await public.ask()).status for _ in range(2)] == [200, 402]
    with pytest.raises(ConfigError, match=r"anonymous\.usd_per_day needs what an ETH costs"):
        load(GatewaySettings, None, "X__", {"anonymous.usd_per_day": "5 usd"}, {})


async def test_models_and_price_cap_of_the_tier_hold(tmp_path: Path) -> None:
    stub = StubOrchestrator({"m": StubModel(), "dear": StubModel()})
    async with opened(tmp_path, stub, models=["m"], max_price="1/2") as public:
        assert [one["id"] for one in (await public.ask("/v1/models")).body["data"]] == ["m"]
        answer = await public.ask(body={"model_id": "dear"})
        assert (answer.status, answer.code) == (403, "permission_denied")
        answer = await public.ask()
        assert (answer.status, answer.code) == (503, "price_above_cap")


async def test_the_books_know_the_tier_and_no_address(tmp_path: Path) -> None:
    async with running(a_stub()) as stub:
        settings = free(tmp_path, stub.uri)
        async with serving(settings) as stage:
            public = Public(stage)
            name = {"Idempotency-Key": "once"}
            assert [(await public.ask(head=name)).status for _ in range(2)] == [200, 200]
            assert (await public.ask(address=BOB)).status == 200
            status = await stage.status()
            assert status["access"]["anonymous"] == {"addresses": 2}
        async with (
            open_gateway_database(settings) as database,
            open_usage_journal(settings, database) as journal,
        ):
            totals = await journal.usage("key")
        assert [(one.group, one.requests, one.fee) for one in totals] == [
            ("anonymous", 2, 2 * FEE)
        ]
    assert await asyncio.to_thread(_mentions, tmp_path, ALICE.encode()) == []


def _mentions(folder: Path, words: bytes) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if words in path.read_bytes()]


async def test_an_address_sees_its_own_jobs_only(tmp_path: Path) -> None:
    async with opened(tmp_path, a_stub()) as public:
        name, wish = "a-name-that-can-be-guessed", {"Prefer": "respond-async"}
        mine = await public.ask(head={"X-Request-Id": name, **wish})
        assert mine.status == 202
        job = f"/jobs/{name}"

        async def is_done() -> bool:
            return bool((await public.ask(job)).body["state"] == "done")

        await until_async(is_done)
        for method in ("GET", "DELETE"):
            assert (await public.ask(job, BOB, method=method)).status == 404
        keyed = {"Authorization": f"Bearer {public.stage.key}"}
        assert (await public.ask(job, head=keyed)).status == 404
        # The name is not taken for anybody else.
        assert (await public.ask(address=BOB, head={"X-Request-Id": name, **wish})).status == 202


async def test_an_idempotency_key_is_its_addresss_own(tmp_path: Path) -> None:
    async with opened(tmp_path, stub := a_stub()) as public:
        name = {"Idempotency-Key": "1"}
        first, repeat = [await public.ask(head=name) for _ in range(2)]
        assert repeat.headers["Idempotency-Replayed"] == "true"
        assert first.body == repeat.body
        other = await public.ask(address=BOB, body={"seed": 8}, head=name)
        assert other.status == 200
        assert "Idempotency-Replayed" not in other.headers
        assert stub.delivered == 2


async def test_a_running_request_is_seen_and_ended_from_its_own_address(tmp_path: Path) -> None:
    stub = a_stub()
    stub.script.append("hang")
    async with opened(tmp_path, stub) as public:
        name = "running-request-1"
        asking = asyncio.create_task(public.ask(head={"X-Request-Id": name}))
        await until(lambda: stub.under_way == 1)
        assert (await public.ask(f"/jobs/{name}", BOB)).status == 404
        assert (await public.ask(f"/jobs/{name}")).body["state"] in {"waiting", "sent", "running"}
        assert (await public.ask(f"/jobs/{name}", method="DELETE")).status == 200
        assert (await asking).code == "cancelled"


async def test_a_job_goes_on_after_a_restart(tmp_path: Path) -> None:
    stub = a_stub()
    stub.script.append("hang")
    name = "after-the-restart"
    async with running(stub):
        settings = free(tmp_path, stub.uri)
        async with serving(settings) as stage:
            told = await Public(stage).ask(head={"X-Request-Id": name, "Prefer": "respond-async"})
            assert told.status == 202
            await until(lambda: stub.under_way == 1)
        async with serving(settings) as stage:
            public = Public(stage)

            async def is_done() -> bool:
                return bool((await public.ask(f"/jobs/{name}")).body["state"] == "done")

            await until_async(is_done)
            assert (await public.ask(f"/jobs/{name}", BOB)).status == 404


async def test_a_webhook_takes_a_key(tmp_path: Path) -> None:
    async with opened(tmp_path, a_stub()) as public:
        wish = {"Prefer": "respond-async", "Limner-Webhook": "https://hooks.example.org/x"}
        answer = await public.ask(head=wish)
        assert (answer.status, answer.code) == (403, "permission_denied")


async def test_looking_is_bounded_too(tmp_path: Path) -> None:
    async with opened(tmp_path, a_stub()) as public:
        asked = 0
        while (answer := await public.ask("/v1/models")).status == 200 and asked < 5000:
            asked += 1
        assert answer.status == 429
        assert asked >= 600
        assert "Your address may ask 600 things a minute" in answer.message
        assert (await public.ask("/v1/models", BOB)).status == 200


async def test_the_contract_and_the_page_say_that_no_key_is_needed(tmp_path: Path) -> None:
    for enabled, needed in ((True, b"optional"), (False, b"required")):
        async with opened(tmp_path / str(enabled), a_stub(), enabled=enabled) as public:
            contract = (await public.ask("/openapi.json")).body
            made = contract["paths"]["/text-to-image"]["post"]
            assert ({} in made["security"]) is enabled
            async with public.stage.client.get(public.stage.gateway.url + "/") as page:
                assert b'data-key="%b"' % needed in await page.read()


@pytest.mark.parametrize("wrong", ["10.0.0.1/8", "localhost", "10.0.0.0/33", ""])
def test_proxies_are_networks(wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.trusted_proxies"):
        load(GatewaySettings, None, "X__", {"server.trusted_proxies": [wrong]}, {})


async def test_a_key_costs_what_it_costs_where_nobody_else_may_ask(tmp_path: Path) -> None:
    async with open_gateway_database(settings_for(tmp_path)) as database:
        ring = KeyRing(database, clock := SystemClock())
        settings = settings_for(tmp_path, anonymous={"enabled": True})
        access = Access(ring, tier=new_tier(settings, clock, bytes(32)))
        assert access.check == ring.check
