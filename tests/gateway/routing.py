"""A dispatcher with everything real behind it, for tests that send requests to stub orchestrators."""

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from gateway.accounting.journal import MIGRATIONS, Journal, open_journal
from gateway.config import GatewaySettings, LinkSettings, PaymentSettings
from gateway.dispatch import Dispatcher, Routing
from gateway.dispatch.hedging import Hedging
from gateway.dispatch.opening import Payments, assemble
from gateway.dispatch.paying import TicketPaying
from gateway.keys import Team, UseLimits
from gateway.link.opening import open_links
from gateway.link.switchboard import Switchboard
from gateway.orchestrators.client import OrchestratorClient, open_client
from gateway.orchestrators.directory import Directory, Refreshing
from gateway.orchestrators.selection import Policy
from gateway.orchestrators.standing import Pausing
from gateway.payments.budget import Budget, Limits
from gateway.payments.sender import TicketSender
from network.chain.model import ChainError
from network.chain.watch import ChainWatch
from network.identity import KeySigner
from network.prices import Price
from network.runtime.clock import SystemClock
from network.runtime.database import Database, open_database
from network.runtime.supervisor import supervise
from network.units import ModelId
from network.wire.messages import TextToImageRequest
from tests.gateway.stub_orchestrator import StubOrchestrator
from tests.network.chain.fake_chain import FakeChain

SIGNER = KeySigner(b"\x11" * 32)


@dataclass(frozen=True)
class Key:
    """A buyer."""

    key_id: str = "key"
    models: frozenset[ModelId] | None = None
    max_price: Price | None = None
    max_in_flight: int | None = None
    limits: UseLimits = field(default_factory=UseLimits)
    team: Team | None = None


@dataclass
class Desk:
    """What a request passes through, and what it leaves behind."""

    dispatcher: Dispatcher
    directory: Directory
    client: OrchestratorClient
    journal: Journal
    budget: Budget
    database: Database
    payments: Payments | None = None
    paying: TicketPaying | None = None
    #: Where nodes link, if they may.
    link_url: str = ""


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
    chain: FakeChain | None = None,
    pay: PaymentSettings = PaymentSettings(),  # noqa: B008
    poll_seconds: float = 0.02,
    links: LinkSettings = LinkSettings(),  # noqa: B008
    hedging: Hedging | None = None,
    resumable_since: float = math.inf,
) -> AsyncIterator[Desk]:
    """Everything between an API and its orchestrators; at exit the money must add up.

    With a `chain`, which is looked at every `poll_seconds`, every job is paid by ticket.
    """
    clock = SystemClock()
    payments: Payments | None = None
    if chain is not None:
        watch = ChainWatch(chain, clock, poll_seconds=poll_seconds)
        payments = assemble(GatewaySettings(payments=pay), TicketSender(SIGNER), watch, clock)
        with suppress(ChainError):
            await watch.refresh()
            await payments.deposit.refresh()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        url = f"sqlite:///{tmp_path / 'gateway.db'}"
        database = await enter(open_database(url, MIGRATIONS))
        journal = await enter(open_journal(database, tmp_path / "journal.ahead"))
        switchboard = Switchboard()
        client = await enter(
            open_client(
                SIGNER,
                version="0.1.0",
                call_timeout=call_timeout,
                connect=switchboard.connect,
            )
        )
        directory = Directory(
            client=client,
            policy=policy,
            refreshing=refreshing or fast(),
            pausing=pausing,
            version="0.1.0",
            clock=clock,
            randomness=random.Random(1),  # noqa: S311
            appraiser=None if payments is None else payments.appraiser,
        )
        uris = [stub if isinstance(stub, str) else stub.uri for stub in stubs]
        directory.list_from("settings", uris)
        supervisor = await enter(supervise(clock))
        settings = GatewaySettings(links=links, data_dir=tmp_path)
        link_url = await enter(open_links(settings, SIGNER, switchboard, directory, clock))
        paying: TicketPaying | None = None
        if payments is not None:
            await journal.close_interrupted(clock.now(), resumable_since=resumable_since)
            paying = await payments.begin(client, directory, journal, supervisor)
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
            paying=paying,
            hedging=hedging,
        )
        supervisor.start("orchestrators", directory.run)
        await directory.first_round(call_timeout * 3)
        yield Desk(
            dispatcher, directory, client, journal, budget, database, payments, paying, link_url
        )
        budget.validate()
        assert dispatcher.in_flight == dispatcher.waiting == budget.total == 0
        for state in directory.states():
            assert state.in_flight == 0
    await check_books(tmp_path)


async def check_books(tmp_path: Path) -> None:
    """Nothing open, and what requests cost is what attempts cost that served them, to the wei."""
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    async with (
        open_database(url, MIGRATIONS) as database,
        open_journal(database, tmp_path / "journal.ahead") as journal,
    ):
        assert await journal.close_interrupted(0.0) == 0
        settled = sum(total.fee for total in await journal.usage("key"))
        totals = await journal.orchestrator_totals()
        delivered = sum(total.fee - total.outrun_fee for total in totals)
        assert settled == delivered
