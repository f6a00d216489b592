"""Lists over HTTP on real sockets: what is read of them, and what stays when nothing can be."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import orjson
import pytest
from aiohttp import ClientSession
from structlog.testing import capture_logs

from gateway.discovery import sources
from gateway.discovery.following import Follower, Following
from gateway.discovery.listing import Admitted, Claim, Rules
from gateway.discovery.sources import RemoteDiscovery, Source, SourceError, Webhook, claims_of
from network.runtime.clock import SystemClock
from network.units import ModelId
from tests.gateway.discovery.listing_server import ListingServer, listing

ONE, TWO = "https://one.example:8935", "https://two.example:8935"


@dataclass
class Follow:
    follower: Follower
    told: list[tuple[str, ...]] = field(default_factory=list)

    def tell(self, source: str, admitted: Admitted) -> None:
        assert source == "webhook"
        self.told.append(tuple(admitted.accounts))


def following(source: Source) -> Follow:
    follow: Follow = Follow.__new__(Follow)
    follow.told = []
    follow.follower = Follower(
        Following("webhook", source, 60.0), Rules(), SystemClock(), follow.tell
    )
    return follow


@asynccontextmanager
async def webhook(*uris: str) -> AsyncIterator[tuple[ListingServer, Follow]]:
    async with listing(*uris) as server, ClientSession() as session:
        yield server, following(Webhook(session, f"{server.url}/list?key=secret-key"))


async def test_a_webhook_is_read_as_livepeers_gateways_read_it() -> None:
    async with webhook("one.example", "https://two.example") as (server, follow):
        await follow.follower.look()
        assert follow.told == [(ONE, TWO)]
        assert server.asked == [("/list?key=secret-key", "")]
        await follow.follower.look()
        assert len(follow.told) == 1
        server.uris = ["https://two.example:8935/"]
        await follow.follower.look()
        assert follow.told[-1] == (TWO,)
        server.uris = []
        await follow.follower.look()
        assert not follow.told[-1]


BAD: dict[str, tuple[dict[str, object], str]] = {
    "refused": ({"status": 500}, "it answered 500"),
    "empty": ({"status": 503}, "knows of nobody"),
    "not modified": ({"status": 304}, "it answered 304"),
    "elsewhere": ({"answer": "redirect"}, "it answered 302"),
    "endless": ({"answer": "endless"}, "longer than"),
    "slow": ({"answer": "hang"}, "within 0.2 s"),
    "no JSON": ({"body": b"<html>"}, "no JSON"),
    "nothing": ({"body": b""}, "no JSON"),
    "no list": ({"body": b'{"address": "https://one.example"}'}, "no list"),
    "a number": ({"body": b"7"}, "no list"),
    "deep": ({"body": b"[" * 100_000}, "no JSON"),
    "no addresses": ({"body": b'["https://one.example", {"address": 7}, null]'}, "not one entry"),
    "too many": ({"body": orjson.dumps([1] * 10_001)}, "10001 entries"),
}


@pytest.mark.parametrize("case", BAD)
async def test_a_webhook_that_fails_keeps_its_last_list_and_is_told_of_once(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, problem = BAD[case]
    async with webhook(ONE) as (server, follow):
        await follow.follower.look()
        good = server.__dict__.copy()
        monkeypatch.setattr(sources, "_SECONDS", 0.2 if case == "slow" else 30.0)
        vars(server).update(changes)
        with capture_logs() as logs:
            await follow.follower.look()
            await follow.follower.look()
            assert problem in follow.follower.describe()["problem"]
            assert follow.follower.describe()["listed"] == 1
            vars(server).update({name: good[name] for name in changes})
            await follow.follower.look()
        assert [line["event"] for line in logs] == [
            "orchestrators_not_listed",
            "orchestrators_listed_again",
        ]
        assert "secret-key" not in str(logs)
        assert follow.told == [(ONE,)]
        assert follow.follower.describe()["problem"] == ""


async def test_a_webhook_that_is_gone_is_asked_again_soon_and_then_less_often() -> None:
    async with listing(ONE) as server:
        source = Webhook(ClientSession(), server.url)
    follower = following(source).follower
    pauses = []
    for _ in range(8):
        await follower.look()
        pauses.append(follower.pause())
    await source.session.close()
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert "no answer" in follower.describe()["problem"]


async def test_entries_that_are_none_do_not_take_the_others_with_them() -> None:
    async with webhook() as (server, follow):
        entries: Sequence[object] = [
            {"address": ONE},
            {"address": None},
            {"score": 1},
            {"address": "ftp://x"},
        ]
        server.body = orjson.dumps(entries)
        await follow.follower.look()
        assert follow.told == [(ONE,)]
        told = follow.follower.describe()
        assert told["skipped_count"] == 3
        assert {"entry": "ftp://x", "reason": "it is neither http nor https"} in told["skipped"]


async def test_a_signers_discovery_is_asked_for_our_models_with_the_token() -> None:
    async with listing(ONE) as server, ClientSession() as session:
        models = (ModelId("limner/shapes"), ModelId("a b&c"))
        remote = RemoteDiscovery(session, f"{server.url}/", models, "token-1")
        assert await remote.read() == [Claim(ONE)]
        path, authorization = server.asked[0]
        assert path == (
            "/discover-orchestrators?caps=text-to-image/limner/shapes&caps=text-to-image/a+b%26c"
        )
        assert authorization == "Bearer token-1"
        server.status = 503
        with pytest.raises(SourceError, match="knows of nobody"):
            await remote.read()


async def test_a_follower_reads_at_once_when_it_is_hurried() -> None:
    async with webhook(ONE) as (server, follow):
        reading = asyncio.ensure_future(follow.follower.run())
        await follow.follower.first_look()
        server.uris = [TWO]
        follow.follower.hurry()
        async with asyncio.timeout(10):
            while len(follow.told) < 2:  # noqa: ASYNC110  what is waited for knows no events
                await asyncio.sleep(0.005)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        assert follow.told == [(ONE,), (TWO,)]


def test_an_empty_list_is_an_answer() -> None:
    assert claims_of([]) == []
