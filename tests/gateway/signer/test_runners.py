"""Live runners of orchestrators: real lists over HTTP, good ones and bad ones."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from aiohttp import ClientSession, web

from gateway.signer.runners import Runners
from tests.gateway.signer.signing_desk import StubClock

GOOD = {
    "url": "https://127.0.0.1:8935/apps/t2i/app",
    "app": "text-to-image/m",
    "mode": "single-shot",
    "price_info": {"price": 10**12, "currency": "wei", "unit": "fixed"},
}


class Lister:
    """An orchestrator's `GET /discovery`."""

    def __init__(self) -> None:
        self.body = b"[]"
        self.status = 200
        self.uri = ""

    async def handle(self, request: web.Request) -> web.Response:
        del request
        return web.Response(body=self.body, status=self.status)

    def lists(self, *runners: Any) -> None:
        self.body = orjson.dumps([{"address": self.uri, "runners": list(runners)}])


@pytest.fixture
async def lister() -> AsyncIterator[Lister]:
    lister = Lister()
    app = web.Application()
    app.router.add_get("/discovery", lister.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    lister.uri = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield lister
    await runner.cleanup()


def priced(**changes: Any) -> dict[str, Any]:
    return {**GOOD, "price_info": {**GOOD["price_info"], **changes}}  # type: ignore[dict-item]


async def test_only_runners_that_can_be_called_and_paid_are_kept(lister: Lister) -> None:
    clock = StubClock()
    async with ClientSession() as session:
        runners = Runners(session, lambda: [lister.uri], clock, interval=30, max_age=60)
        assert runners.of(lister.uri) == ()
        lister.lists(
            GOOD,
            {**GOOD, "url": "ftp://x/"},
            {**GOOD, "url": 5},
            {**GOOD, "app": ""},
            {**GOOD, "price_info": None},
            priced(price=0),
            priced(price=1.5),
            priced(price=True),
            priced(currency="usd"),
            priced(unit="image"),
            "nonsense",
        )
        await runners.refresh()
        assert list(runners.of(lister.uri)) == [GOOD]


async def test_a_failed_look_does_not_forget_what_was_known_until_it_is_old(
    lister: Lister,
) -> None:
    clock = StubClock()
    async with ClientSession() as session:
        runners = Runners(session, lambda: [lister.uri], clock, interval=30, max_age=60)
        lister.lists(GOOD)
        await runners.refresh()
        for status, body in ((500, b"[]"), (200, b"{"), (200, b" " * 2**21), (302, b"")):
            lister.status, lister.body = status, body
            await runners.refresh()
            assert list(runners.of(lister.uri)) == [GOOD]
        clock.seconds += 61
        assert list(runners.of(lister.uri)) == []
        lister.status, lister.body = 200, b'{"not":"a list"}'
        await runners.refresh()
        assert list(runners.of(lister.uri)) == []
