"""Progress of one's own request."""

import asyncio
from typing import Any

import pytest

from tests.gateway.api.surface import Surface

ID = "0123456789abcdef-own"


async def look(
    surface: Surface, request_id: str = ID, key: str | None = "good"
) -> tuple[int, Any]:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with surface.client.get(f"{surface.url}/jobs/{request_id}", headers=headers) as response:
        return response.status, await response.json()


async def test_a_client_sees_how_far_its_request_is(surface: Surface) -> None:
    surface.dispatcher.gate.clear()
    request = asyncio.ensure_future(surface.post(X_Request_Id=ID))
    await surface.until(lambda: surface.dispatcher.under_way == 1)
    assert await look(surface) == (
        200,
        {"id": ID, "state": "running", "done_steps": 3, "total_steps": 50, "position": 0},
    )
    surface.dispatcher.gate.set()
    assert (await request).status == 200
    assert (await look(surface))[0] == 404


async def test_another_key_sees_nothing(surface: Surface) -> None:
    surface.dispatcher.gate.clear()
    request = asyncio.ensure_future(surface.post(X_Request_Id=ID))
    await surface.until(lambda: surface.dispatcher.under_way == 1)
    stranger, unknown = await look(surface, key="other"), await look(surface, "another-id-of-16")
    assert stranger == unknown
    assert stranger[0] == 404
    assert (await look(surface, key=None))[0] == (await look(surface, key="bad"))[0] == 401
    surface.dispatcher.gate.set()
    await request


async def test_a_request_without_an_id_can_be_seen_by_nobody_else(surface: Surface) -> None:
    surface.dispatcher.gate.clear()
    request = asyncio.ensure_future(surface.post())
    await surface.until(lambda: surface.dispatcher.under_way == 1)
    job_id = surface.dispatcher.seen[0][0]
    assert (await look(surface, job_id))[0] == 404
    surface.dispatcher.gate.set()
    await request


@pytest.mark.parametrize("request_id", ["", "x", "a" * 65, "..%2F..%2Fetc", "0123456789abcdef/"])
async def test_what_is_no_request_id_is_not_found(surface: Surface, request_id: str) -> None:
    assert (await look(surface, request_id))[0] == 404


async def test_a_storm_of_polls_asks_the_orchestrator_seldom(surface: Surface) -> None:
    surface.dispatcher.gate.clear()
    request = asyncio.ensure_future(surface.post(X_Request_Id=ID))
    await surface.until(lambda: surface.dispatcher.under_way == 1)
    async with asyncio.TaskGroup() as group:
        polls = [group.create_task(look(surface)) for _ in range(30)]
    assert {poll.result()[0] for poll in polls} == {200}
    assert surface.dispatcher.asked <= 5
    surface.dispatcher.gate.set()
    await request
