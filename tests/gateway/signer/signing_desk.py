"""A signer's application on a real port, over a chain whose answers a test sets."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import pybase64
from aiohttp import ClientSession, web

from gateway.orchestrators.peer import OrchestratorState
from gateway.signer.authorization import Authorization, Everybody
from gateway.signer.charging import JobType
from gateway.signer.desk import PaymentDesk, PriceCaps
from gateway.signer.http import SignerCalls, signer_application
from gateway.signer.market import Market
from network.capabilities import job_capabilities
from network.chain.model import Head, SenderInfo
from network.identity import KeySigner
from network.payments.checks import PayerLimits
from network.payments.tickets import CERTAIN, CreationRound, TicketParams, rand_hash
from network.units import Address, ModelId, Wei
from network.wire.codec import AuthToken, OrchestratorInfo, encode_orchestrator_info
from network.wire.tickets import encode_ticket_params

SIGNER = KeySigner(
    bytes.fromhex("4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318")
)
ORCHESTRATOR = Address(b"\xaa" * 20)
NOW = 1_800_000_000.0
BLOCK = 1000
ROUND = CreationRound(5, b"\x07" * 32)


@dataclass
class StubClock:
    seconds: float = NOW

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class StubOutlook:
    """What the chain says; tests change it."""

    head: Head = field(
        default_factory=lambda: Head(
            l1_block=BLOCK,
            current_round=5,
            last_initialized_round=5,
            creation=ROUND,
            ticket_validity_period=2,
            pool_size=1,
            gas_price=Wei(1),
            is_paused=False,
            read_at=NOW,
        )
    )
    sender: SenderInfo = field(
        default_factory=lambda: SenderInfo(Wei(10**18), 0, Wei(10**18), Wei(0))
    )
    active: set[Address] = field(default_factory=lambda: {ORCHESTRATOR})

    async def sender_info(self, sender: Address) -> SenderInfo:
        assert sender == SIGNER.address
        return self.sender

    async def is_active(self, orchestrator: Address) -> bool:
        return orchestrator in self.active


def ticket_params(
    *, ev: int = 1000, face_value: int = 10**9, rand: int = 10, expiration_block: int = BLOCK + 40
) -> TicketParams:
    """A quote whose tickets are worth exactly what is said, or a hair less."""
    return TicketParams(
        recipient=ORCHESTRATOR,
        face_value=Wei(face_value),
        win_prob=ev * CERTAIN // face_value,
        recipient_rand_hash=rand_hash(rand),
        seed=b"\x01" * 32,
        expiration_block=expiration_block,
        creation=ROUND,
    )


INFO = OrchestratorInfo(
    transcoder="https://127.0.0.1:8936",
    address=ORCHESTRATOR,
    price=Fraction(6, 7),
    prices=(),
    capabilities=job_capabilities(ModelId("m"), "0.9.1"),
    auth_token=AuthToken(b"t" * 32, "01234567", int(NOW) + 1800),
    ticket_params=encode_ticket_params(ticket_params()),
)


def asked(info: OrchestratorInfo = INFO, **more: Any) -> dict[str, Any]:
    """The body of a payment request."""
    return {
        "orchestrator": pybase64.b64encode_as_string(encode_orchestrator_info(info)),
        "ManifestID": "27_m",
        **more,
    }


def quoting(params: TicketParams, **changes: Any) -> OrchestratorInfo:
    return replace(INFO, ticket_params=encode_ticket_params(params), **changes)


@dataclass
class Desk:
    """A served signer."""

    url: str
    client: ClientSession
    outlook: StubOutlook
    clock: StubClock

    async def call(
        self, path: str, body: Any = None, method: str = "POST", **headers: str
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        async with self.client.request(
            method, self.url + path, json=body, headers=headers
        ) as response:
            answer = await response.json()
            return response.status, answer, dict(response.headers)

    async def pay(self, info: OrchestratorInfo = INFO, **more: Any) -> dict[str, Any]:
        """A payment that has to succeed."""
        status, answer, _ = await self.call("/generate-live-payment", asked(info, **more))
        assert status == 200, answer
        return answer

    async def refused(
        self, info: OrchestratorInfo = INFO, **more: Any
    ) -> tuple[int, str, dict[str, str]]:
        status, answer, headers = await self.call("/generate-live-payment", asked(info, **more))
        assert list(answer) == ["error"], answer
        assert list(answer["error"]) == ["message"]
        return status, answer["error"]["message"], headers


@asynccontextmanager
async def signing_desk(
    authorization: Authorization | None = None,
    *,
    states: Sequence[OrchestratorState] = (),
    caps: PriceCaps | None = None,
) -> AsyncIterator[Desk]:
    outlook, clock = StubOutlook(), StubClock()
    caps = caps or PriceCaps()
    desk = PaymentDesk(SIGNER, outlook, clock, limits=PayerLimits(), caps=caps)
    market = Market(
        lambda: states, lambda _: (), max_age=60, max_price=lambda: caps.of(JobType.PIXELS)
    )
    calls = SignerCalls(SIGNER, authorization or Everybody(), desk, market)
    runner = web.AppRunner(signer_application(calls))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    async with ClientSession() as client:
        try:
            yield Desk(f"http://{host}:{port}", client, outlook, clock)
        finally:
            await runner.cleanup()
