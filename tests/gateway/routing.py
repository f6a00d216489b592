"""A dispatcher with everything real behind it, for tests that send requests to stub orchestrators."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from gateway.accounting.journal import MIGRATIONS, Journal, open_journal
from gateway.dispatch import Dispatcher, Routing
from gateway.orchestrators.client import OrchestratorClient, open_client
from gateway.orchestrators.directory import Directory, Refreshing
from gateway.orchestrators.selection import Policy
from gateway.orchestrators.standing import Pausing
from gateway.payments.budget import Budget, Limits
from network.identity import KeySigner
from network.runtime.clock import SystemClock
from network.runtime.database import Database, open_database
from network.runtime.supervisor import supervise
from network.units import ModelId
from network.wire.messages import TextToImageRequest
from tests.gateway.stub_orchestrator import StubOrchestrator

SIGNER = KeySigner(b"\x11" * 32)


@dataclass(frozen=True)
class Key:
    """A buyer."""

    key_id: str = "key"
    models: frozenset[ModelId] | None = None
    max_price: Fraction | None = None
    max_in_flight: int | None = None


@dataclass
class Desk:
    """What a request passes through, and what it leaves behind."""

    dispatcher: Dispatcher
    directory: Directory
    client: OrchestratorClient
    journal: Journal
    budget: Budget
    database: Database


def request_for(**fields: object) -> TextToImageRequest:
    known = {"prompt": "a boat", "model_id": "m", "width": 64, "height": 64, "seed": 7}
    return TextToImageRequest.model_validate({**known, "num_inference_steps": 5, **fields})


async def until(condition: Callable[[], object]) -> None:
    """Return when `condition` holds; fail after ten seconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  what a stub counts has no event
            await asyncio.sleep(0.005)


def fast() -> Refreshing:
    return Refreshing(interval=0.3, busy_interval=0.05, least_interval=0.01, longest_interval=0.5)


@asynccontextmanager
async def open_desk(
    tmp_path: Path,
    stubs: Sequence[StubOrchestrator | str],
    *,
    policy: Policy = Policy(time_value=Fraction(0)),  # noqa: B008
    routing: Routing = Routing(),  # noqa: B008
    limits: Limits = Limits(),  # noqa: B008
    refreshing: Refreshing | None = None,
    pausing: Pausing = Pausing(first=0.2),  # noqa: B008
    call_timeout: float = 1.0,
) -> AsyncIterator[Desk]:
    """Everything between an API and its orchestrators; at exit the money must add up."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        url = f"sqlite:///{tmp_path / 'gateway.db'}"
        database = await enter(open_database(url, MIGRATIONS))
        journal = await enter(open_journal(database, tmp_path / "journal.ahead"))
        client = await enter(open_client(SIGNER, version="0.1.0", call_timeout=call_timeout))
        directory = Directory(
            [stub if isinstance(stub, str) else stub.uri for stub in stubs],
            client=client,
            policy=policy,
            refreshing=refreshing or fast(),
            pausing=pausing,
            version="0.1.0",
            clock=clock,
            randomness=random.Random(1),  # noqa: S311
        )
        budget = Budget(limits)
        dispatcher = Dispatcher(
            directory=directory,
            client=client,
            journal=journal,
            budget=budget,
            policy=policy,
            routing=routing,
            clock=clock,
            randomness=random.Random(2),  # noqa: S311
        )
        supervisor = await enter(supervise(clock))
        supervisor.start("orchestrators", directory.run)
        await directory.first_round(call_timeout * 3)
        yield Desk(dispatcher, directory, client, journal, budget, database)
        budget.validate()
        assert dispatcher.in_flight == dispatcher.waiting == budget.total == 0
        for state in directory.states():
            assert state.in_flight == 0
    await check_books(tmp_path)


async def check_books(tmp_path: Path) -> None:
    """Nothing open, and what requests cost is what succeeded attempts cost, to the wei."""
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    async with (
        open_database(url, MIGRATIONS) as database,
        open_journal(database, tmp_path / "journal.ahead") as journal,
    ):
        assert await journal.close_interrupted(0.0) == 0
        settled = sum(total.fee for total in await journal.usage("key"))
        delivered = sum(total.fee for total in await journal.orchestrator_totals())
        assert settled == delivered
