"""An attempt that is asked for again: one job, one charge, and the answer to whom it belongs."""

import asyncio
from pathlib import Path
from typing import Any

from network.identity import KeySigner
from network.wire import image_parts
from network.wire.headers import CREDIT, FEE, JOB_ID
from tests.node.fakes import FakeEngine
from tests.node.nodes import GATEWAY_KEY, Answer, Buyer, eventually, running_node
from tests.node.payments.paid_nodes import PayingBuyer, credit_of, funded_chain, paid_node

OTHER_KEY = KeySigner(b"\x33" * 32)
ATTEMPT = "0123456789abcdef0123456789abcdef"
NAMED = {JOB_ID: ATTEMPT}


async def earned(buyer: Buyer) -> str:
    status = (await buyer.get("/status", admin=True)).json
    assert status["held"] == "0"
    return str(status["earned_since_start"])


async def test_what_was_delivered_is_answered_again_and_charged_once(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with running_node(tmp_path, engine) as node, Buyer(node, GATEWAY_KEY) as buyer:
        first = await buyer.ask(NAMED, seed=None)
        again = await buyer.ask(NAMED, seed=None)
        parts = await buyer.ask({**NAMED, "Accept": image_parts.ACCEPT}, seed=None)
        assert (again.status, again.body) == (200, first.body)
        assert {name: again.headers[name] for name in (JOB_ID, FEE)} == {
            name: first.headers[name] for name in (JOB_ID, FEE)
        }
        assert parts.headers["Content-Type"] == image_parts.CONTENT_TYPE
        assert len(engine.jobs) == 1
        assert await earned(buyer) == first.headers[FEE]


async def test_a_strangers_repeat_gets_nothing(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with (
        running_node(tmp_path, engine) as node,
        Buyer(node, GATEWAY_KEY) as buyer,
        Buyer(node, OTHER_KEY) as other,
        Buyer(node) as nobody,
    ):
        first = await buyer.ask(NAMED)
        refused = [
            await other.ask(NAMED),
            await nobody.ask(NAMED),
            await buyer.ask(NAMED, prompt="another prompt"),
        ]
        assert [answer.status for answer in refused] == [409] * 3
        assert len(engine.jobs) == 1
        assert await earned(buyer) == first.headers[FEE]


async def test_a_repeat_joins_the_attempt_under_way(tmp_path: Path) -> None:
    engine = FakeEngine(step_seconds=0.02)
    async with running_node(tmp_path, engine) as node, Buyer(node, GATEWAY_KEY) as buyer:
        asking = [asyncio.ensure_future(buyer.ask(NAMED, num_inference_steps=20)) for _ in "12"]
        first, second = await asyncio.gather(*asking)
        assert first.status == second.status == 200
        assert first.body == second.body
        assert len(engine.jobs) == 1
        assert await earned(buyer) == first.headers[FEE]


async def test_a_repeat_gets_what_the_one_who_left_began(tmp_path: Path) -> None:
    engine = FakeEngine(step_seconds=0.02)
    async with running_node(tmp_path, engine) as node, Buyer(node, GATEWAY_KEY) as buyer:
        left = asyncio.ensure_future(buyer.ask(NAMED, num_inference_steps=40))
        await eventually(lambda: is_running(buyer))
        again = asyncio.ensure_future(buyer.ask(NAMED, num_inference_steps=40))
        await buyer.get("/health")  # the repeat is there
        left.cancel()
        answer = await again
        assert answer.status == 200
        assert len(engine.jobs) == 1
        assert engine.cancelled == []
        assert await earned(buyer) == answer.headers[FEE]


async def test_when_all_have_left_the_job_is_cancelled_and_its_id_used_up(tmp_path: Path) -> None:
    engine = FakeEngine(step_seconds=0.02)
    async with running_node(tmp_path, engine) as node, Buyer(node, GATEWAY_KEY) as buyer:
        left = asyncio.ensure_future(buyer.ask(NAMED, num_inference_steps=100))
        await eventually(lambda: is_running(buyer))
        left.cancel()
        await eventually(lambda: is_over(buyer))
        assert (await buyer.ask(NAMED, num_inference_steps=100)).status == 409
        assert (len(engine.jobs), len(engine.cancelled)) == (1, 1)
        assert await earned(buyer) == "0"


async def test_a_refusal_is_told_to_all_who_wait_for_it(tmp_path: Path) -> None:
    queue: dict[str, Any] = {"max_waiting": 0}
    engine = FakeEngine(step_seconds=0.02)
    async with (
        running_node(tmp_path, engine, queue=queue) as node,
        Buyer(node, GATEWAY_KEY) as buyer,
    ):
        busy = [asyncio.ensure_future(buyer.ask(num_inference_steps=40)) for _ in range(2)]
        await eventually(lambda: has_begun(engine, 2))
        answers = await asyncio.gather(buyer.ask(NAMED), buyer.ask(NAMED))
        assert {answer.status for answer in answers} == {503}
        assert [answer.status for answer in await asyncio.gather(*busy)] == [200, 200]
        # It never had a place, so its id is not used up.
        assert (await buyer.ask(NAMED)).status == 200


async def test_nothing_is_kept_where_the_operator_wants_none(tmp_path: Path) -> None:
    async with (
        running_node(tmp_path, repeats={"keep_bytes": 0}) as node,
        Buyer(node, GATEWAY_KEY) as buyer,
    ):
        assert (await buyer.ask(NAMED)).status == 200
        assert (await buyer.ask(NAMED)).status == 409


async def test_after_a_restart_of_the_node_an_id_is_still_used_up(tmp_path: Path) -> None:
    engine = FakeEngine()
    for status in (200, 409):
        async with running_node(tmp_path, engine) as node, Buyer(node, GATEWAY_KEY) as buyer:
            assert (await buyer.ask(NAMED)).status == status
    assert len(engine.jobs) == 1


async def test_a_repeats_tickets_are_not_looked_at(tmp_path: Path) -> None:
    chain = funded_chain()
    async with paid_node(tmp_path, chain) as node, PayingBuyer(node) as buyer:
        quote = await buyer.quote()
        first = await buyer.pay(buyer.payment(quote), NAMED)
        assert first.status == 200, first.text
        without = await buyer.ask(NAMED)
        tickets = await buyer.pay(buyer.payment(quote, 2), NAMED)
        for again in (without, tickets):
            assert (again.status, again.body) == (200, first.body)
            assert again.headers[FEE] == first.headers[FEE]
            assert again.headers[CREDIT] == first.headers[CREDIT]
        receipt = (await buyer.receipt(ATTEMPT)).json
        assert receipt["credited"] == first.headers[CREDIT]
        assert receipt["charged"] == first.headers[FEE]
        # They are good for another attempt, then.
        other = await buyer.pay(buyer.payment(quote, 1), {JOB_ID: "f" * 32})
        assert credit_of(other) == quote.value


async def is_running(buyer: Buyer) -> bool:
    answer: Answer = await buyer.get(f"/jobs/{ATTEMPT}")
    return answer.status == 200 and answer.json["state"] == "running"


async def is_over(buyer: Buyer) -> bool:
    return (await buyer.get(f"/jobs/{ATTEMPT}")).status == 404


async def has_begun(engine: FakeEngine, count: int) -> bool:
    return engine.active == count
