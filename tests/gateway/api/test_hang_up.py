"""A client that goes away takes its request with it."""

import asyncio
from pathlib import Path

from tests.gateway.api.surface import Surface, open_surface

REQUEST = (
    b"POST /text-to-image HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\n"
    b"Content-Type: application/json\r\nContent-Length: 19\r\n\r\n"
    b'{"prompt":"a boat"}'
)


async def test_hanging_up_cancels_the_request_and_frees_its_place(surface: Surface) -> None:
    surface.dispatcher.gate.clear()
    _, writer = await asyncio.open_connection(surface.host, surface.port)
    writer.write(REQUEST)
    await surface.until(lambda: surface.dispatcher.under_way == 1)
    writer.transport.abort()
    await surface.until(lambda: surface.dispatcher.cancelled == 1)
    await surface.until(lambda: surface.admission.in_flight == 0)
    assert len(surface.running) == 0
    assert b'status="499"' in await surface.metrics.render()


async def test_hanging_up_while_sending_the_body_frees_the_place(surface: Surface) -> None:
    _, writer = await asyncio.open_connection(surface.host, surface.port)
    writer.write(REQUEST[:-5])
    await surface.until(lambda: surface.admission.in_flight == 1)
    writer.transport.abort()
    await surface.until(lambda: surface.admission.in_flight == 0)
    assert not surface.dispatcher.seen


async def test_one_client_leaving_disturbs_no_other(surface: Surface) -> None:
    surface.dispatcher.gate.clear()
    staying = asyncio.ensure_future(surface.post())
    _, writer = await asyncio.open_connection(surface.host, surface.port)
    writer.write(REQUEST)
    await surface.until(lambda: surface.dispatcher.under_way == 2)
    writer.transport.abort()
    await surface.until(lambda: surface.dispatcher.cancelled == 1)
    surface.dispatcher.gate.set()
    assert (await staying).status == 200


async def test_closing_the_gateway_lets_requests_finish_within_its_time(tmp_path: Path) -> None:
    async with open_surface(tmp_path / "a") as surface:
        surface.dispatcher.gate.clear()
        request = asyncio.ensure_future(surface.post())
        await surface.until(lambda: surface.dispatcher.under_way == 1)
        asyncio.get_running_loop().call_later(0.1, surface.dispatcher.gate.set)
        # The block waits for the request; the listener then closes around nothing.
    assert (await request).status == 200


async def test_many_clients_at_once_are_all_answered(surface: Surface) -> None:
    async with asyncio.TaskGroup() as group:
        requests = [group.create_task(surface.post()) for _ in range(64)]
    assert {request.result().status for request in requests} == {200}
