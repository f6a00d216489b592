"""Paid work on a chain: after whatever happens to a request, both sides' books say the same."""

import asyncio
import logging
import os
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from scripts.local_network.network import MODEL
from scripts.local_network.paid import (
    QUOTE_BLOCKS,
    Attempt,
    PaidNetwork,
    PaidPlan,
    balance,
    bought,
    open_paid_network,
    prizes,
    sold,
)
from tests.integration.asking import QUICK, ask, session
from tests.integration.journals import wait_for_the_database
from tests.node.config.test_loras import lora_file

log = logging.getLogger(__name__)

pytestmark = pytest.mark.slow

#: For a longer run: how many outcomes, and how many deliveries among kills.
OUTCOMES = int(os.environ.get("LIMNER_PAID_OUTCOMES", "40"))
REQUESTS = int(os.environ.get("LIMNER_PAID_REQUESTS", "40"))
LEAST_KILLS = 4
SMALL: dict[str, Any] = QUICK | {"width": 64, "height": 64, "num_inference_steps": 1}
#: Wei: about every other ticket wins. The smallest job costs 10**10, a little less than a ticket's worth.
PLAN = PaidPlan(face_value=3 * 10**10, round_length=200)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PaidNetwork]:
    folder = tmp_path_factory.mktemp("paid")
    # An adapter of another model: the engine finds that out, when the job is paid for already.
    nowhere = {"unet.no.such.lora_A.weight": (2, 4), "unet.no.such.lora_B.weight": (4, 2)}
    lora_file(folder / "loras" / "broken.safetensors", nowhere)
    plan = replace(PLAN, node={"loras_dir": str(folder / "loras")})
    with ExitStack() as running:
        yield open_paid_network(folder, running, plan)


def known(network: PaidNetwork) -> dict[str, Attempt]:
    found = bought(network.gateway)
    return {attempt: one for attempt, one in found.items() if one is not None}


def has_no_doubts(network: PaidNetwork) -> bool:
    wait_for_the_database(network.gateway)
    return all(one is not None for one in bought(network.gateway).values())


async def settled(network: PaidNetwork, seconds: float = 60) -> None:
    """Return once the gateway knows what became of every attempt."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(has_no_doubts, network):
        if time.monotonic() > deadline:
            raise AssertionError("the gateway is in doubt about an attempt")
        await asyncio.sleep(0.05)


def assert_the_books_agree(network: PaidNetwork) -> None:
    """Attempt by attempt and to the last part of a wei."""
    ours, theirs = known(network), sold(network.node)
    for attempt, one in theirs.items():
        assert ours.get(attempt) == one, attempt
    for attempt, one in ours.items():
        assert theirs.get(attempt, Attempt(one.credited * 0, 0)) == one, attempt
    assert balance(ours) == balance(theirs)


async def redeemed(network: PaidNetwork, seconds: float = 120) -> None:
    """Return once every prize is paid out."""
    await asyncio.to_thread(network.devnet.mine, QUOTE_BLOCKS)
    deadline = time.monotonic() + seconds
    while not all(prize.is_over for prize in prizes(network.node).values()):
        assert time.monotonic() < deadline, prizes(network.node)
        await asyncio.sleep(0.2)
    assert all(prize.state != "written-off" for prize in prizes(network.node).values())
    income = sum(prize.amount for prize in prizes(network.node).values())
    assert income == await asyncio.to_thread(network.transfers)


async def hung_up(http: aiohttp.ClientSession, network: PaidNetwork, seconds: float) -> None:
    """Ask for something long, and go away."""
    long = SMALL | {"width": 256, "height": 256, "num_inference_steps": 40}
    asking = asyncio.ensure_future(ask(http, network.gateway, long))
    await asyncio.sleep(seconds)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


@pytest.mark.timeout(3600)
async def test_both_balances_agree_after_every_outcome(network: PaidNetwork) -> None:
    """Success, failure, cancellation, expired quotes, refreshed sessions, and several at once."""
    chance = random.Random(20261124)  # noqa: S311 - moments, not secrets
    seen: dict[str, int] = {}
    async with session() as http:
        for _ in range(OUTCOMES):
            outcome = chance.choices(
                ["success", "images", "failure", "cancel", "expiry", "crowd"], [5, 2, 2, 2, 1, 1]
            )[0]
            seen[outcome] = seen.get(outcome, 0) + 1
            match outcome:
                case "success":
                    size = 64 * chance.randint(1, 4)
                    answer = await ask(http, network.gateway, SMALL | {"width": size})
                    assert answer.status == 200, answer.body
                case "images":
                    answer = await ask(http, network.gateway, SMALL | {"num_images_per_prompt": 3})
                    assert answer.status == 200, answer.body
                case "failure":
                    answer = await ask(
                        http, network.gateway, SMALL | {"loras": '{"limner/none": 1}'}
                    )
                    assert answer.status == 404, answer.body
                case "cancel":
                    await hung_up(http, network, chance.uniform(0.0, 0.6))
                case "expiry":
                    await asyncio.to_thread(network.devnet.mine, QUOTE_BLOCKS)
                    # No chain moves so far at once: let the node see it, and quote for what is now.
                    await asyncio.sleep(1.5)
                    answer = await ask(http, network.gateway, SMALL)
                    assert answer.status == 200, answer.body
                case _:
                    answers = await asyncio.gather(
                        *(ask(http, network.gateway, SMALL) for _ in range(5))
                    )
                    assert {answer.status for answer in answers} <= {200, 503}
            await settled(network)
            assert_the_books_agree(network)
    assert any(one.charged for one in known(network).values())
    await redeemed(network)


async def killing(
    network: PaidNetwork, chance: random.Random, done: asyncio.Event, kills: list[str]
) -> None:
    """SIGKILL gateway or node every few seconds, and start it again on the same books."""
    while not done.is_set():
        victim = network.gateway if chance.random() < 0.6 else network.node
        try:
            async with asyncio.timeout(chance.uniform(1.0, 4.0)):
                await done.wait()
        except TimeoutError:
            await asyncio.to_thread(victim.program.kill)
            await asyncio.to_thread(victim.start)
            await asyncio.to_thread(network.gateway.wait_for_model, MODEL)
            kills.append("gateway" if victim is network.gateway else "node")


@pytest.mark.timeout(3600)
async def test_kills_leave_no_wei_unexplained(tmp_path: Path) -> None:
    """Case 19 and 20: paid requests while gateway and node are killed at random."""
    chance = random.Random(11)  # noqa: S311 - moments, not secrets
    with ExitStack() as running:
        network = await asyncio.to_thread(open_paid_network, tmp_path, running, PLAN)
        done = asyncio.Event()
        kills: list[str] = []
        killer = asyncio.ensure_future(killing(network, chance, done, kills))
        delivered = 0
        async with session() as http:
            while (delivered < REQUESTS or len(kills) < LEAST_KILLS) and not killer.done():
                answers = await asyncio.gather(
                    *(ask(http, network.gateway, SMALL) for _ in range(4)), return_exceptions=True
                )
                good = [a for a in answers if not isinstance(a, BaseException) and a.status == 200]
                delivered += len(good)
                if not good:
                    await asyncio.sleep(0.2)
        done.set()
        await killer
        assert {"gateway", "node"} <= set(kills)
        await settled(network, 120)
        assert_the_books_agree(network)
        charged = [one for one in sold(network.node).values() if one.charged]
        assert len(charged) >= delivered
        await redeemed(network)
        won = len(prizes(network.node))
        log.info("%d delivered, %d kills, %d tickets won", delivered, len(kills), won)
