"""Builds what turns winning tickets into income."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from network.chain.contracts import LivepeerChain
from network.chain.transactions import open_transactions
from network.chain.watch import ChainWatch
from network.identity import KeySigner
from network.runtime.clock import Clock
from network.runtime.database import Database
from network.runtime.supervisor import supervise
from node.config.settings import NodeSettings
from node.payments.announcing import ServiceUriKeeper
from node.payments.gas_policy import GasPolicy
from node.payments.planning import Planner
from node.payments.redeemer import Redeemer
from node.payments.redemptions import Redemptions, SenderLine, State, by_sender
from node.payments.rewards import RewardCaller
from node.payments.settling import Settler
from node.payments.winnings import Pending


@dataclass(frozen=True, slots=True)
class TicketReport:
    """What winning tickets came to. `late`: near their deadline, and waiting."""

    senders: tuple[SenderLine, ...]
    total: SenderLine
    waiting: dict[str, int]
    late: int
    problem: str

    def as_json(self) -> dict[str, object]:
        """Return it for programs: amounts as text, because wei outgrow JSON numbers."""
        return {
            "total": self.total.as_json(),
            "senders": [line.as_json() for line in self.senders],
            "waiting": self.waiting,
            "late": self.late,
            "problem": self.problem,
        }


@dataclass(frozen=True, slots=True)
class Earning:
    """Made by `open_earning`."""

    redeemer: Redeemer
    books: Redemptions
    #: None where the settings name no service URI that could differ from the registered one.
    service_uri: ServiceUriKeeper | None = None

    async def report(self) -> TicketReport:
        """Read the books. Raises DatabaseError."""
        lines, total = by_sender(await self.books.all())
        reasons = Counter(wait.reason.value for wait in self.redeemer.waiting.values())
        return TicketReport(
            tuple(lines), total, dict(reasons), self.redeemer.late, self.redeemer.problem
        )


@asynccontextmanager
async def open_earning(
    chain: LivepeerChain,
    watch: ChainWatch,
    pending: Pending,
    signer: KeySigner,
    settings: NodeSettings,
    *,
    database: Database,
    clock: Clock,
) -> AsyncIterator[Earning]:
    """Redeem winning tickets for the length of the block, from where an earlier process ended.

    `pending` knows of every winner; those that came to their end are taken out of it. Raises
    ConfigError, where another process sends for the account, or DatabaseError.
    """
    wishes = settings.redemption
    policy = GasPolicy(wishes.max_gas_price, wishes.deadline_blocks, wishes.largest_batch)
    books = Redemptions(database, clock)
    for record in await books.all():
        if record.state not in (State.QUEUED, State.SENT):
            pending.drop(record.winner.ticket_hash)
    async with (
        open_transactions(signer, chain, settings.data_dir, clock, settings.chain) as transactions,
        supervise(clock) as supervisor,
    ):
        settler = Settler(chain, books, pending, clock, final_after=wishes.final_after_seconds)
        planner = Planner(
            chain=chain,
            watch=watch,
            account=transactions.account,
            books=books,
            settler=settler,
            policy=policy,
            clock=clock,
        )
        redeemer = Redeemer(
            chain=chain, watch=watch, transactions=transactions, planner=planner, settler=settler
        )
        supervisor.start("redeemer", redeemer.run)
        if wishes.call_reward:
            caller = RewardCaller(chain, watch, transactions, wishes.max_gas_price)
            supervisor.start("rewards", caller.run)
        keeper = None
        if settings.service_uri is not None:
            keeper = ServiceUriKeeper(
                chain,
                watch,
                transactions,
                settings.service_uri,
                clock,
                sets=settings.reachability.keep_service_uri,
            )
            supervisor.start("service URI", keeper.run)
        yield Earning(redeemer, books, keeper)
