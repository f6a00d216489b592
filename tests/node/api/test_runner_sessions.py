"""Sessions of apps of others: a place for one caller, until it is given back or forgotten."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from network.identity import checksum
from tests.node.api.test_runners import RUNNERS, SECRET, beat
from tests.node.apps.callers import listed, problem
from tests.node.apps.runner_apps import app_of
from tests.node.nodes import GATEWAY_KEY, Buyer, eventually, running_node

PERSISTENT = {"mode": "persistent", "runner_id": "live"}


async def answer(request: web.Request) -> web.Response:
    told = {name: value for name, value in request.headers.items() if name.startswith("Livepeer-")}
    status = 500 if request.path.endswith("/broken") else 200
    return web.json_response({"path": request.path, "told": told}, status=status)


@asynccontextmanager
async def staged(folder: Path, *, capacity: int = 1, **runners: Any) -> AsyncIterator[Buyer]:
    settings = {"runners": {"secret": SECRET, **runners}}
    async with (
        running_node(folder, None, **settings) as node,
        Buyer(node) as buyer,
        app_of(answer) as url,
    ):
        await beat(buyer, runner_url=url, capacity=capacity, **PERSISTENT)
        yield buyer


async def opened(buyer: Buyer) -> dict[str, str]:
    found = await buyer.post("/apps/live/session", b"{}", {})
    assert found.status == 200, found.text
    told: dict[str, str] = found.json
    return {name: url.removeprefix(buyer.node.url) for name, url in told.items()}


async def receipt(buyer: Buyer, session: dict[str, str]) -> str:
    found = await buyer.get(f"/jobs/{session['session_id']}/receipt")
    state: str = found.json["state"]
    return state


async def test_a_session_is_reserved_used_and_given_back(tmp_path: Path) -> None:
    async with staged(tmp_path) as buyer:
        (other,) = [one for one in await listed(buyer) if one["app"] == "acme/upscaler"]
        assert (other["mode"], other["url"]) == (
            "persistent",
            f"{buyer.node.url}/apps/live/session",
        )
        session = await opened(buyer)
        bare = (await buyer.post(session["app_url"], b"{}", {})).json
        assert bare["path"] == "/base"
        found = (await buyer.post(f"{session['app_url']}/v1/start", b"{}", {})).json
        assert found["path"] == "/base/v1/start"
        told = found["told"]
        assert told.pop("Livepeer-Session-Token") not in session["session_id"]
        assert told == {
            "Livepeer-Runner-Route": "live",
            "Livepeer-Session-Id": session["session_id"],
            "Livepeer-Session-Control": buyer.node.url + session["control_url"],
        }
        (other,) = [one for one in await listed(buyer) if one["app"] == "acme/upscaler"]
        assert (other["capacity_used"], other["capacity_available"]) == (1, 0)
        full = await buyer.post("/apps/live/session", b"", {})
        assert problem(full) == (503, "no capacity available for runner")
        assert (await beat(buyer, **PERSISTENT)).json["session_ids"] == [session["session_id"]]
        assert await receipt(buyer, session) == "open"

        assert (await buyer.post(f"{session['control_url']}/stop", b"", {})).status == 204

        async def is_over() -> bool:
            return await receipt(buyer, session) == "delivered"

        await eventually(is_over)
        assert (await buyer.post(session["app_url"], b"{}", {})).status == 404
        assert (await buyer.post(f"{session['control_url']}/stop", b"", {})).status == 404
        await opened(buyer)


async def test_a_session_that_nobody_uses_ends_and_was_nothing(tmp_path: Path) -> None:
    async with staged(tmp_path, session_idle_seconds=0.05) as buyer:
        session = await opened(buyer)

        async def is_over() -> bool:
            return await receipt(buyer, session) == "failed"

        await eventually(is_over)
        assert (await buyer.get("/status", admin=True)).json["held"] == "0"


async def test_a_session_is_of_its_app_and_its_app_wants_one(tmp_path: Path) -> None:
    async with staged(tmp_path, capacity=2) as buyer:
        session = await opened(buyer)
        await beat(buyer, **{**PERSISTENT, "runner_id": "other"})
        elsewhere = session["app_url"].replace("/live/", "/other/")
        assert (await buyer.post(elsewhere, b"{}", {})).status == 404
        assert (await buyer.post("/apps/live/session/guess/app", b"{}", {})).status == 404
        assert (await buyer.post("/apps/live/app", b"{}", {})).status == 409
        await beat(buyer, runner_id="single")
        assert (await buyer.post("/apps/single/session", b"{}", {})).status == 404
        assert (await buyer.post(f"{session['app_url']}/a%2F..%2F..", b"{}", {})).status == 400


async def test_a_session_ends_with_the_node_and_costs_nothing(tmp_path: Path) -> None:
    async with staged(tmp_path) as buyer:
        session = await opened(buyer)
        await buyer.post(session["app_url"], b"{}", {})
    async with running_node(tmp_path, **RUNNERS) as node, Buyer(node) as buyer:
        assert await receipt(buyer, session) == "interrupted"


async def test_many_come_at_once_and_as_many_get_a_place_as_there_are(tmp_path: Path) -> None:
    async with staged(tmp_path, capacity=3) as buyer:
        found = await asyncio.gather(
            *(buyer.post("/apps/live/session", b"{}", {}) for _ in range(12))
        )
        assert sorted(one.status for one in found) == [200] * 3 + [503] * 9


async def test_where_callers_have_to_be_known_there_are_no_sessions(tmp_path: Path) -> None:
    known = [checksum(GATEWAY_KEY.address)]
    async with (
        running_node(tmp_path, **RUNNERS, allowed_gateways=known) as node,
        Buyer(node) as buyer,
    ):
        await beat(buyer, **PERSISTENT)
        assert (await buyer.post("/apps/live/session", b"{}", {})).status == 404
        (line,) = (await buyer.get("/status", admin=True)).json["apps_of_others"]["runners"]
        assert "persistent" in line["why_not"]
