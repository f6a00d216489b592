"""Nodes that are paid by ticket on a chain in memory, and someone who pays them over the wire."""

import json
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar, overload

from grpclib.exceptions import GRPCError
from sqlalchemy import Connection

from network.capabilities import job_capabilities
from network.chain.model import Chain
from network.chain.profiles import Profile
from network.chain.settings import ChainSettings
from network.identity import KeySigner, checksum
from network.payments.signing import TicketSeries
from network.payments.tickets import TicketParams
from network.runtime.clock import Clock
from network.runtime.database import open_database
from network.units import Wei
from network.wire.codec import Payment, TicketSenderParams, encode_payment
from network.wire.headers import CREDIT, PAYMENT, encode_header
from network.wire.tickets import (
    decode_ticket_params,
    encode_creation_round,
    encode_ticket_params,
)
from node.accounting.journal import MIGRATIONS
from node.app import RunningNode, open_node
from node.config.settings import NodeSettings
from tests.network.chain.fake_chain import FakeChain
from tests.node.fakes import MODEL, FakeEngine
from tests.node.nodes import GATEWAY_KEY, NODE_KEY, PRICE, Answer, Buyer, settings_for

T = TypeVar("T")

#: Of the job that `Buyer.ask` sends: 64 x 64 pixels at 5/2 wei.
FEE = 10240
CHAIN_ID = 412346
ETHER = 10**18


class MemoryChain(FakeChain):
    """Its rounds are longer than quotes live, as on Livepeer's network."""

    round_length = 200


C = TypeVar("C", bound=MemoryChain)


@overload
def funded_chain() -> MemoryChain: ...


@overload
def funded_chain(chain: C) -> C: ...


def funded_chain(chain: MemoryChain | None = None) -> MemoryChain:
    """A chain on which the node is active and the gateway can pay."""
    chain = chain or MemoryChain()
    chain.gas_price = Wei(1)
    chain.add_orchestrator(NODE_KEY.address)
    chain.fund(GATEWAY_KEY.address, Wei(ETHER), Wei(ETHER))
    chain.next_round()
    return chain


def network_file(folder: Path, rpc: str = "http://127.0.0.1:9", **other: object) -> Path:
    """What a development chain would have written; the contracts' addresses are nobody's."""
    path = folder / "network.json"
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "chain_id": CHAIN_ID,
        "controller": checksum(NODE_KEY.address),
        "ai_service_registry": checksum(NODE_KEY.address),
        "rpc": rpc,
    }
    path.write_text(json.dumps({**content, **other}))
    return path


async def paid_settings(folder: Path, **overrides: Any) -> NodeSettings:
    """A ticket is worth about a job of `Buyer.ask`, and wins about every second time."""
    network = network_file(folder)
    model = {
        "id": MODEL,
        "path": folder / "model",
        "price": "5/2",
        "capacity": 2,
        "profile": {"size": "64x64"},
    }
    values: dict[str, Any] = {
        "models": [model],
        "chain": {"network": str(network), "poll_seconds": 0.02},
        "payments": {"redeem_gas": 21_000, "max_face_value": 21_000},
        "defaults_policy": "as-sent",
        "queue": {"max_waiting": 64},
    }
    return await settings_for(folder, **{**values, **overrides})


@asynccontextmanager
async def paid_node(
    folder: Path, chain: Chain, /, engine: FakeEngine | None = None, **overrides: Any
) -> AsyncIterator[RunningNode]:
    settings = await paid_settings(folder, **overrides)

    @asynccontextmanager
    async def opener(
        _profile: Profile, _settings: ChainSettings, _clock: Clock
    ) -> AsyncIterator[Chain]:
        yield chain

    engine = engine or FakeEngine()
    async with open_node(settings, engine_opener=engine.opener, chain_opener=opener) as node:
        yield node


def as_killed(folder: Path, to: Path) -> Path:
    """What a node would find again that is killed at this moment: a copy of all its files."""
    shutil.copytree(folder, to)
    return to


async def in_books(folder: Path, query: Callable[[Connection], T]) -> T:
    """Ask the journal of a node that does not run."""
    async with open_database(books_of(folder), MIGRATIONS) as database:
        return await database.read(query)


def books_of(folder: Path) -> str:
    """Where a node's journal is."""
    return f"sqlite:///{folder / 'data' / 'node.sqlite'}"


@dataclass(frozen=True)
class Quote:
    """What the node asked for, and the nonces that are left."""

    params: TicketParams
    nonces: Iterator[int]

    @property
    def value(self) -> Fraction:
        return self.params.expected_value


class PayingBuyer(Buyer):
    """A gateway that pays by ticket."""

    def __init__(self, node: RunningNode, signer: KeySigner = GATEWAY_KEY) -> None:
        super().__init__(node, signer)
        self.payer = signer

    async def quote(self) -> Quote:
        """Raises GRPCError where nothing is quoted."""
        info = await self.terms(job_capabilities(MODEL, "0.1.0"))
        assert info.ticket_params is not None
        return Quote(decode_ticket_params(info.ticket_params), iter(range(1, 601)))

    async def refusal(self) -> str:
        """Why nothing is quoted; "" if something is."""
        try:
            await self.quote()
        except GRPCError as error:
            return error.message or "without a reason"
        return ""

    def tickets(self, quote: Quote, count: int) -> tuple[TicketSenderParams, ...]:
        series = TicketSeries(quote.params, self.payer.address)
        numbers = [next(quote.nonces) for _ in range(count)]
        return tuple(TicketSenderParams(n, series.sign(self.payer, n)) for n in numbers)

    def payment(self, quote: Quote, count: int = 1) -> Payment:
        return Payment(
            sender=self.payer.address,
            expected_price=PRICE,
            ticket_params=encode_ticket_params(quote.params, with_creation=False),
            expiration_params=encode_creation_round(quote.params.creation),
            tickets=self.tickets(quote, count),
        )

    async def pay(
        self,
        payment: Payment | None = None,
        headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> Answer:
        """Ask for an image; without a payment out of the balance."""
        sent = {} if payment is None else {PAYMENT: encode_header(encode_payment(payment))}
        return await self.ask({**sent, **(headers or {})}, **fields)

    async def receipt(self, attempt_id: str) -> Answer:
        return await self.get(f"/jobs/{attempt_id}/receipt")


def changed(payment: Payment, quote: Quote, **changes: Any) -> Payment:
    """The same payment over other ticket parameters than were quoted."""
    params = replace(quote.params, **changes)
    return replace(payment, ticket_params=encode_ticket_params(params, with_creation=False))


def credit_of(answer: Answer) -> Fraction:
    return Fraction(answer.headers[CREDIT])


def refused(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.text.rstrip("\n")
