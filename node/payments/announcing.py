"""Keeps the address that gateways look up on the chain the one that the node really has."""

import asyncio
from dataclasses import dataclass
from typing import Final

import structlog

from network.chain.contracts import LivepeerChain
from network.chain.fees import GasPriceError
from network.chain.model import ChainError, Head, Transactions
from network.chain.watch import ChainWatch
from network.runtime.clock import Clock

_LOOK_SECONDS: Final = 600.0
_PURPOSE: Final = "service-uri"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Registered:
    """What the registries say of an account; "" is nothing.

    Gateways that look for images read the AIServiceRegistry, those that look for video the older one.
    """

    for_images: str
    for_video: str


def difference(wanted: str, found: Registered) -> str:
    """Say where gateways that look for images are led instead of to `wanted`; "" if they are led there."""
    if found.for_images.rstrip("/") == wanted.rstrip("/"):
        return ""
    if not found.for_images:
        return f"the AIServiceRegistry has no address of this node; it should be {wanted}"
    return f"the AIServiceRegistry has {shown(found.for_images)}, and the node is at {wanted}"


def command(wanted: str) -> str:
    """Return what an operator types to set it right."""
    return f"limner-node service-uri {wanted}"


def shown(text: str) -> str:
    """Return what anybody may have registered, fit for a terminal."""
    return "".join(letter for letter in text if letter.isprintable())[:200]


class ServiceUriKeeper:
    """`run` is the job of a supervisor. Looks at the start, in every round, and every ten minutes.

    With `sets` it has a difference put right by a transaction, for an active orchestrator, and at most
    once a round: two nodes that share an account would outbid each other for ever.
    """

    def __init__(
        self,
        chain: LivepeerChain,
        watch: ChainWatch,
        transactions: Transactions,
        wanted: str,
        clock: Clock,
        *,
        sets: bool,
    ) -> None:
        self._chain = chain
        self._watch = watch
        self._transactions = transactions
        self._wanted = wanted
        self._clock = clock
        self._sets = sets
        self._news = asyncio.Event()
        self._round = -1
        self._looked_at = float("-inf")
        self._told = ""
        self._found: Registered | None = None

    async def run(self) -> None:
        """Look whenever it is time to, until cancelled."""
        unsubscribe = self._watch.subscribe(self._heard)
        self._news.set()
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                try:
                    await self.step()
                except ChainError as error:
                    self._tell(f"the registries cannot be read, or not be written: {error}", "")
        finally:
            unsubscribe()

    async def step(self) -> str:
        """Compare, and tell or set a difference; return it, "" if there is none. Raises ChainError."""
        head = self._watch.head
        self._round, self._looked_at = head.current_round, self._clock.monotonic()
        wrong = await self._difference()
        if wrong and self._sets:
            wrong = await self._put_right(head, wrong)
        if wrong:
            self._tell(wrong, command(self._wanted))
        elif self._told:
            log.info("gateways find the node again", uri=self._wanted)
            self._told = ""
        return wrong

    def as_json(self) -> dict[str, object]:
        """Return what was read last, for the operator's `/status`."""
        return {
            "wanted": self._wanted,
            "registered": None if self._found is None else shown(self._found.for_images),
            "problem": self._told,
        }

    async def _difference(self) -> str:
        account = self._transactions.account
        self._found = Registered(
            await self._chain.service_uri(account),
            await self._chain.service_uri(account, ai=False),
        )
        return difference(self._wanted, self._found)

    async def _put_right(self, head: Head, wrong: str) -> str:
        if head.is_paused or not await self._chain.is_active(self._transactions.account):
            return f"{wrong}; it is not set, because the orchestrator is not active"
        call = (await self._chain.calls()).set_service_uri(self._wanted)
        # The same purpose for the rest of the round: what is under way, or was sent already, is not
        # sent again, not even after a restart.
        purpose = f"{_PURPOSE}:{head.current_round}:{self._wanted}"
        try:
            receipt = await self._transactions.send(call, purpose)
        except GasPriceError as error:
            return f"{wrong}; it is not set: {error}"
        left = await self._difference()
        if not left:
            log.info("service URI registered", uri=self._wanted, cost=receipt.cost)
        return left and f"{left}; it was set in this round, and changed again by somebody"

    def _heard(self, head: Head) -> None:
        is_due = self._clock.monotonic() - self._looked_at >= _LOOK_SECONDS
        if head.current_round != self._round or is_due:
            self._news.set()

    def _tell(self, problem: str, advice: str) -> None:
        if problem != self._told:
            log.warning("gateways may not find the node", problem=problem, advice=advice)
        self._told = problem
