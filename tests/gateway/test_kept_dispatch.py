"""Answers that are kept, with a real dispatcher, a real journal and an orchestrator on real sockets."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select

from gateway.accounting.events import Event, Fulfilment, Outcome, Settlement
from gateway.accounting.tables import fulfilments, settlements
from gateway.dispatch import Delivered
from gateway.keys import UseLimits
from network.units import Wei
from tests.gateway.routing import Desk, Key, open_desk, request_for, until
from tests.gateway.stub_orchestrator import StubModel, StubOrchestrator, running
from tests.gateway.test_app import serving, settings_for
from tests.gateway.waiting import until_async

FEE = 64 * 64
ID = "0123456789abcdef-own"


async def answered(desk: Desk) -> list[Any]:
    def query(connection: Connection) -> list[Any]:
        columns = (settlements.c.state, settlements.c.fee, fulfilments.c.body)
        joined = select(*columns).outerjoin(
            fulfilments, fulfilments.c.request_id == settlements.c.request_id
        )
        return [tuple(row) for row in connection.execute(joined)]

    return await desk.journal.read(query)


async def test_an_answer_and_its_price_are_one_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records: list[tuple[type, ...]] = []

    async def keep(delivered: Delivered) -> Fulfilment:
        assert (delivered.fee, len(delivered.images)) == (FEE, 1)
        # Nothing of it is charged before its answer is there.
        assert await answered(desk) == []
        return Fulfilment("r1", "done", 200, "the answer", "{}", 5.0)

    stub = StubOrchestrator()
    async with running(stub), open_desk(tmp_path, [stub]) as desk:
        record = desk.journal.record

        def watched(*events: Event) -> Awaitable[None]:
            records.append(tuple(type(event) for event in events))
            return record(*events)

        monkeypatch.setattr(desk.journal, "record", watched)
        result = await desk.dispatcher.run("r1", Key(), request_for(), keep)
        await result.settled
        assert await answered(desk) == [("settled", FEE, "the answer")]
    assert records == [(Outcome, Settlement, Fulfilment)]


async def test_who_cancels_while_the_answer_is_made_is_charged_nothing(tmp_path: Path) -> None:
    making = asyncio.Event()

    async def keep(delivered: Delivered) -> Fulfilment:
        del delivered
        making.set()
        await asyncio.sleep(3600)
        raise AssertionError

    stub = StubOrchestrator()
    key = Key(limits=UseLimits(wei_per_day=Wei(FEE)))
    async with running(stub), open_desk(tmp_path, [stub]) as desk:
        asking = asyncio.ensure_future(desk.dispatcher.run("r1", key, request_for(), keep))
        await making.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await answered(desk) == [("cancelled", 0, None)]
        # And the budget is free for another.
        await (await desk.dispatcher.run("r2", key, request_for())).settled


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}, {"Prefer": "respond-async"}])
async def test_delete_frees_the_node_and_costs_nothing(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    stub = StubOrchestrator({"m": StubModel()})
    stub.script.append("hang")
    async with running(stub), serving(settings_for(tmp_path, stub.uri)) as stage:
        sent = {"Authorization": f"Bearer {stage.key}", "X-Request-Id": ID, **headers}
        body = {"prompt": "a boat", "width": 64, "height": 64}
        url = stage.gateway.url
        asking = asyncio.ensure_future(
            stage.client.post(f"{url}/text-to-image", json=body, headers=sent)
        )
        await until(lambda: stub.under_way == 1)
        own = {"Authorization": sent["Authorization"]}
        async with stage.client.delete(f"{url}/jobs/{ID}", headers=own) as ended:
            assert await ended.json() == {"id": ID, "state": "cancelled"}
        async with await asking as answer:
            assert answer.status == (202 if "Prefer" in headers else 409)
        await until(lambda: stub.cancelled == 1)
        await until_async(stage.is_idle)
        assert (await stage.status())["spent_wei"] == "0"


async def test_what_a_job_costs_counts_wherever_costs_count(tmp_path: Path) -> None:
    stub = StubOrchestrator({"m": StubModel()})
    async with running(stub), serving(settings_for(tmp_path, stub.uri)) as stage:
        body = {"prompt": "a boat", "width": 64, "height": 64}
        sent = {"Authorization": f"Bearer {stage.key}", "Idempotency-Key": "k"}
        for _ in range(3):
            async with stage.client.post(
                f"{stage.gateway.url}/text-to-image", json=body, headers=sent
            ) as answer:
                assert answer.status == 200
        assert (await stage.status())["spent_wei"] == str(FEE)
    assert stub.delivered == 1
