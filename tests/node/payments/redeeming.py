"""A node's redeemer on a real chain: its orchestrator, its books, and senders that owe it."""

import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from eth_account.signers.local import LocalAccount
from hexbytes import HexBytes
from typing_extensions import override
from web3.types import TxParams

from network.chain.contracts import LivepeerChain, open_chain
from network.chain.model import SignedTicket
from network.chain.profiles import Profile
from network.chain.progress import Pace
from network.chain.settings import ChainSettings
from network.chain.transactions import TransactionSender, open_transactions
from network.chain.watch import ChainWatch
from network.devnet.deployment import ETHER
from network.identity import KeySigner, checksum, parse_address
from network.payments.tickets import CERTAIN, Ticket, rand_hash
from network.runtime.clock import SystemClock
from network.runtime.database import Database, open_database
from network.units import Address, Wei
from node.accounting.journal import MIGRATIONS
from node.accounting.tables import winning_tickets
from node.payments.gas_policy import GasPolicy
from node.payments.planning import Planner
from node.payments.receiver import Winner
from node.payments.redeemer import Redeemer
from node.payments.redemptions import Record, Redemptions, State
from node.payments.settling import Settler
from node.payments.till import _row
from node.payments.winnings import Pending
from tests.devnet import CHAIN_ID, Devnet

FINAL_AFTER: Final = 1800.0
POLICY: Final = GasPolicy(max_gas_price=Wei(10**10), deadline_blocks=6)
#: Looks at once, and replaces nothing.
PACE: Final = Pace(
    poll_seconds=0.02, settled_poll_seconds=0.02, missing_seconds=0.0, lost_seconds=0.0
)
#: Replaces what is not mined at once.
IMPATIENT: Final = replace(PACE, replace_seconds=0.1, repeat_seconds=0.1)


class Clock(SystemClock):
    """The machine's clock, which can be put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    @override
    def now(self) -> float:
        return super().now() + self.ahead


class Bench:
    """All of it. `restart()` is a process that died and a new one on the same files."""

    def __init__(self, devnet: Devnet, folder: Path, orchestrator: LocalAccount) -> None:
        self.devnet = devnet
        self.folder = folder
        self.orchestrator = orchestrator
        self.account = orchestrator
        self.clock = Clock()
        self.policy = POLICY
        self.timeout = 5.0
        self.pace = PACE
        self.chain: LivepeerChain
        self.transactions: TransactionSender
        self.books: Redemptions
        self.pending: Pending
        self.redeemer: Redeemer
        self.watch: ChainWatch
        self._database: Database
        self._stack = AsyncExitStack()
        self._numbers = itertools.count(1)

    @property
    def recipient(self) -> Address:
        return parse_address(self.orchestrator.address)

    async def start(self) -> None:
        stack, clock = self._stack, self.clock
        contracts = self.devnet.contracts
        profile = Profile(
            "devnet",
            CHAIN_ID,
            parse_address(contracts.controller),
            parse_address(contracts.addresses["AIServiceRegistry"]),
        )
        url = f"sqlite:///{self.folder / 'node.sqlite'}"
        self._database = await stack.enter_async_context(open_database(url, MIGRATIONS))
        self.chain = await stack.enter_async_context(
            open_chain(
                profile, (self.devnet.chain.url,), SystemClock(), timeout_seconds=self.timeout
            )
        )
        self.transactions = await stack.enter_async_context(
            open_transactions(
                KeySigner(self.account.key),
                self.chain,
                self.folder,
                SystemClock(),
                ChainSettings(),
                pace=self.pace,
                lock_folder=self.folder,
            )
        )
        self.watch = ChainWatch(self.chain, SystemClock())
        self.books = Redemptions(self._database, clock)
        self.pending = Pending()
        settler = Settler(self.chain, self.books, self.pending, clock, final_after=FINAL_AFTER)
        planner = Planner(
            chain=self.chain,
            watch=self.watch,
            account=self.transactions.account,
            books=self.books,
            settler=settler,
            policy=self.policy,
            clock=clock,
        )
        self.redeemer = Redeemer(
            chain=self.chain,
            watch=self.watch,
            transactions=self.transactions,
            planner=planner,
            settler=settler,
        )

    async def stop(self) -> None:
        await self._stack.aclose()
        self._stack = AsyncExitStack()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def sender(self, deposit: int = ETHER, reserve: int = 0) -> KeySigner:
        made = await self.devnet.sender(deposit, reserve)
        return KeySigner(made.key)

    async def win(
        self,
        sender: KeySigner,
        face: int = ETHER // 10,
        *,
        lifetime: int = 0,
        spoilt: bool = False,
    ) -> Winner:
        """A ticket of `sender` that won, whose parameters expire in `lifetime` blocks."""
        head = await self.chain.head()
        rand = next(self._numbers)
        ticket = Ticket(
            recipient=self.recipient,
            sender=sender.address,
            face_value=Wei(face),
            win_prob=CERTAIN,
            sender_nonce=1,
            recipient_rand_hash=rand_hash(rand),
            creation=head.creation,
        )
        message = bytes(32) if spoilt else ticket.hash
        signed = SignedTicket(ticket, sender.sign(message), rand)
        winner = Winner(signed, ticket.hash, head.l1_block + lifetime)
        await self._database.append([(winning_tickets, _row(winner, "attempt", 0.0))])
        self.pending.add(winner)
        return winner

    async def step(self, blocks: int = 1) -> None:
        """A new head, some blocks later, and all that follows from it."""
        await self.mine(blocks)
        await self.redeemer.step()

    async def mine(self, blocks: int = 1) -> None:
        if blocks:
            await self.devnet.mine(blocks)
        await self.watch.refresh()

    async def by_stranger(self, *winners: Winner) -> None:
        """Somebody who learnt the numbers redeems the tickets."""
        stranger = await self.devnet.account()
        calls = await self.chain.calls()
        for winner in winners:
            call = calls.redeem(winner.signed)
            to = self.devnet.web3.to_checksum_address(checksum(call.to))
            transaction: TxParams = {"to": to, "data": HexBytes(call.data), "gas": 500_000}
            await self.devnet.contracts.send(stranger, transaction)

    async def records(self) -> dict[bytes, Record]:
        return {record.winner.ticket_hash: record for record in await self.books.all()}

    async def record(self, winner: Winner) -> Record:
        return (await self.records())[winner.ticket_hash]

    async def states(self, winner: Winner) -> list[str]:
        return [entry.state.value for entry in (await self.record(winner)).entries]

    def reason(self, winner: Winner) -> str:
        wait = self.redeemer.waiting[winner.ticket_hash]
        return wait.detail or wait.reason.value

    async def paid_out(self) -> int:
        """The sum of all WinningTicketTransfer events to our recipient."""
        broker = self.devnet.contracts.contract("TicketBroker")
        logs = await broker.events.WinningTicketTransfer().get_logs(
            from_block=0, argument_filters={"recipient": self.orchestrator.address}
        )
        return sum(log["args"]["amount"] for log in logs)

    async def check(self) -> None:
        """What must always hold: booked income is what events say, and no wei is lost sight of."""
        records = list((await self.records()).values())
        assert sum(record.income for record in records) == await self.paid_out()
        for record in records:
            face = record.winner.signed.ticket.face_value
            if record.state in (State.QUEUED, State.SENT):
                assert record.income == record.loss == 0
            else:
                assert record.income + record.loss == face


@asynccontextmanager
async def bench_on(devnet: Devnet, folder: Path) -> AsyncIterator[Bench]:
    """The redeemer of an active orchestrator; its books are held against the events at the end."""
    base_fee = (await devnet.web3.eth.get_block("latest"))["baseFeePerGas"]
    orchestrator = await devnet.orchestrator()
    await devnet.next_round()
    bench = Bench(devnet, folder, orchestrator)
    await bench.start()
    try:
        yield bench
        await bench.check()
    finally:
        # Taking a snapshot back does not take this back.
        await devnet.set_base_fee(base_fee)
        await bench.stop()
