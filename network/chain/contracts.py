"""Livepeer's contracts as payments ask them.

async with open_chain(profile, urls, clock) as chain:
head = await chain.head()
calls = await chain.calls()
transaction = calls.fund_deposit(Wei(10**17))
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from network.chain.calls import Calls
from network.chain.deployment import NO_ADDRESS, Deployment, Web3Gate, open_web3, read
from network.chain.endpoint import quantity
from network.chain.events import logs_between, parse_receipt, payout_topics, payouts_of
from network.chain.model import (
    NO_WEI,
    Call,
    ChainError,
    ChainUnavailableError,
    Head,
    Payout,
    Receipt,
    SenderInfo,
)
from network.chain.profiles import Profile
from network.chain.rpc import Rpc, open_rpc
from network.identity import checksum, parse_address
from network.payments.tickets import CreationRound
from network.runtime.clock import Clock
from network.units import Address, Wei

if TYPE_CHECKING:
    pass

#: Contracts may be replaced by a vote; the Controller is asked again so often.
_RESOLVE_SECONDS: Final = 600.0
_MOST_ORCHESTRATORS: Final = 1000
_PARALLEL_READS: Final = 16
_NO_HASH: Final = bytes(32)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OnChainOrchestrator:
    """An orchestrator in the pool and where it says it is; "" where it says nothing."""

    address: Address
    service_uri: str


@dataclass(frozen=True, slots=True)
class Delegator:
    """An account's stake: `bonded` LPT in its smallest unit, `fees` in wei, `delegate` whom it backs."""

    bonded: Wei
    fees: Wei
    delegate: Address
    start_round: int
    last_claim_round: int
    #: How often it unbonded; each left a lock of that number.
    unbonding_locks: int = 0


@dataclass(frozen=True, slots=True)
class UnbondingLock:
    """LPT in its smallest unit, and the round from which it may be withdrawn."""

    amount: Wei
    withdraw_round: int


class LivepeerChain:
    """Reads, estimates, and what to send. Made by `open_chain`; implements `Chain`.

    Every method raises RevertedError where a contract refuses, ChainUnavailableError where no
    endpoint helps, WrongChainError, or another ChainError.
    """

    def __init__(self, profile: Profile, rpc: Rpc, clock: Clock) -> None:
        self.profile: Final = profile
        self.rpc: Final = rpc
        self._clock = clock
        self._gate: Web3Gate | None = None
        self._deployment: Deployment | None = None
        self._resolved_at = 0.0
        self._resolving = asyncio.Lock()

    async def calls(self) -> Calls:
        """Builders of transactions to the contracts as they are now."""
        return Calls(await self._at())

    async def head(self) -> Head:
        """All of it as of one block, in three round trips."""
        at = await self._at()
        block = (await self.rpc.latest_block()).number
        answers = await asyncio.gather(
            read(at.rounds.functions.blockNum(), block),
            read(at.rounds.functions.currentRound(), block),
            read(at.rounds.functions.lastInitializedRound(), block),
            read(at.broker.functions.ticketValidityPeriod(), block),
            read(at.bonding.functions.getTranscoderPoolSize(), block),
            read(at.controller.functions.paused(), block),
            self.rpc.request("eth_gasPrice"),
        )
        l1_block, current, initialized, validity, pool_size, is_paused, gas_price = answers
        return Head(
            l1_block=l1_block,
            current_round=current,
            last_initialized_round=initialized,
            creation=await self._creation(at, initialized, block),
            ticket_validity_period=validity,
            pool_size=pool_size,
            gas_price=Wei(quantity(gas_price)),
            is_paused=is_paused,
            read_at=self._clock.monotonic(),
        )

    async def _creation(self, at: Deployment, initialized: int, block: int) -> CreationRound:
        """Arbitrum sometimes stores no hash for a round; the one before it is good for tickets too."""
        numbers = [initialized, initialized - 1] if initialized else [initialized]
        hashes = await asyncio.gather(
            *(read(at.rounds.functions.blockHashForRound(number), block) for number in numbers)
        )
        for number, block_hash in zip(numbers, hashes, strict=True):
            if block_hash != _NO_HASH:
                return CreationRound(number, bytes(block_hash))
        return CreationRound(initialized, _NO_HASH)

    async def sender_info(self, sender: Address) -> SenderInfo:
        at = await self._at()
        funds, reserve = await read(at.broker.functions.getSenderInfo(checksum(sender)))
        return SenderInfo(
            deposit=Wei(funds[0]),
            withdraw_round=funds[1],
            reserve_remaining=Wei(reserve[0]),
            reserve_claimed_in_round=Wei(reserve[1]),
        )

    async def claimed_reserve(self, sender: Address, claimant: Address) -> Wei:
        """What `claimant`, the recipient of tickets, took of the reserve in this round, in wei."""
        at = await self._at()
        function = at.broker.functions.claimedReserve(checksum(sender), checksum(claimant))
        return Wei(await read(function))

    async def is_active(self, orchestrator: Address) -> bool:
        at = await self._at()
        return bool(await read(at.bonding.functions.isActiveTranscoder(checksum(orchestrator))))

    async def is_registered(self, orchestrator: Address) -> bool:
        at = await self._at()
        return bool(
            await read(at.bonding.functions.isRegisteredTranscoder(checksum(orchestrator)))
        )

    async def is_used(self, ticket_hash: bytes) -> bool:
        at = await self._at()
        return bool(await read(at.broker.functions.usedTickets(ticket_hash)))

    async def balance(self, account: Address) -> Wei:
        return Wei(
            quantity(await self.rpc.request("eth_getBalance", (checksum(account), "latest")))
        )

    async def token_balance(self, account: Address) -> Wei:
        """LPT that is not staked, in its smallest unit."""
        at = await self._at()
        return Wei(await read(at.token.functions.balanceOf(checksum(account))))

    async def token_allowance(self, account: Address) -> Wei:
        """LPT that the BondingManager may take from `account`."""
        at = await self._at()
        function = at.token.functions.allowance(checksum(account), at.bonding.address)
        return Wei(await read(function))

    async def delegator(self, account: Address) -> Delegator:
        at = await self._at()
        found = await read(at.bonding.functions.getDelegator(checksum(account)))
        return Delegator(
            bonded=Wei(found[0]),
            fees=Wei(found[1]),
            delegate=parse_address(found[2]),
            start_round=found[4],
            last_claim_round=found[5],
            unbonding_locks=found[6],
        )

    async def unbonding_lock(self, account: Address, number: int) -> UnbondingLock:
        """Both 0 once it was withdrawn."""
        at = await self._at()
        function = at.bonding.functions.getDelegatorUnbondingLock(checksum(account), number)
        amount, withdraw_round = await read(function)
        return UnbondingLock(Wei(amount), withdraw_round)

    async def transcoder_shares(self, orchestrator: Address) -> tuple[int, int]:
        """`rewardCut` and `feeShare`, parts of a million."""
        at = await self._at()
        found = await read(at.bonding.functions.getTranscoder(checksum(orchestrator)))
        return int(found[1]), int(found[2])

    async def pending_fees(self, account: Address, end_round: int) -> Wei:
        """Redeemed fees that `account` may withdraw, in wei."""
        at = await self._at()
        return Wei(await read(at.bonding.functions.pendingFees(checksum(account), end_round)))

    async def last_reward_round(self, orchestrator: Address) -> int:
        at = await self._at()
        return int((await read(at.bonding.functions.getTranscoder(checksum(orchestrator))))[0])

    async def is_round_locked(self) -> bool:
        """At the end of a round orchestrators cannot change their shares."""
        at = await self._at()
        return bool(await read(at.rounds.functions.currentRoundLocked()))

    async def unlock_period(self) -> int:
        """Rounds between `unlock` and `withdraw`."""
        at = await self._at()
        return int(await read(at.broker.functions.unlockPeriod()))

    async def round_length(self) -> int:
        """L1 blocks of a round."""
        at = await self._at()
        return int(await read(at.rounds.functions.roundLength()))

    async def round_start(self) -> int:
        """The L1 block that the current round began at."""
        at = await self._at()
        return int(await read(at.rounds.functions.currentRoundStartBlock()))

    async def service_uri(self, orchestrator: Address, *, ai: bool = True) -> str:
        """What `orchestrator` registered, in the AIServiceRegistry or the older one; "" if nothing.

        Anybody may register anything: it is a claim.
        """
        at = await self._at()
        registry = at.ai_services if ai else at.services
        return str(await read(registry.functions.getServiceURI(checksum(orchestrator))))

    async def orchestrators(self, *, ai: bool = True) -> tuple[OnChainOrchestrator, ...]:
        """The pool, by falling stake, each with its service URI; one round trip for each member."""
        found = await self.pool()
        limit = asyncio.Semaphore(_PARALLEL_READS)

        async def located(address: Address) -> OnChainOrchestrator:
            async with limit:
                return OnChainOrchestrator(address, await self.service_uri(address, ai=ai))

        return tuple(await asyncio.gather(*(located(address) for address in found)))

    async def pool(self, known: Sequence[Address] = ()) -> tuple[Address, ...]:
        """The orchestrators of the pool, by falling stake, as of one block.

        It is a list of which each member names the next: one round trip each, except for those in
        `known`, the pool as it was read before, which are asked side by side.
        """
        at = await self._at()
        block = (await self.rpc.latest_block()).number
        limit = asyncio.Semaphore(_PARALLEL_READS)

        async def after(address: Address) -> Address:
            async with limit:
                function = at.bonding.functions.getNextTranscoderInPool(checksum(address))
                return parse_address(await read(function, block))

        told = dict(zip(known, await asyncio.gather(*map(after, known)), strict=True))
        found: dict[Address, None] = {}
        address = parse_address(await read(at.bonding.functions.getFirstTranscoderInPool(), block))
        while address != NO_ADDRESS and address not in found and len(found) < _MOST_ORCHESTRATORS:
            found[address] = None
            address = told[address] if address in told else await after(address)
        return tuple(found)

    async def check_call(self, sender: Address, call: Call, block: int | None = None) -> bytes:
        """What `call` by `sender` would give; RevertedError says why it would not."""
        at = "latest" if block is None else hex(block)
        answer = await self.rpc.request("eth_call", (_transaction(sender, call), at))
        return bytes.fromhex(str(answer).removeprefix("0x"))

    async def estimate_gas(self, sender: Address, call: Call) -> int:
        """Gas that `call` by `sender` takes now; RevertedError if it would fail."""
        return quantity(await self.rpc.request("eth_estimateGas", (_transaction(sender, call),)))

    async def receipt(self, transaction_hash: bytes) -> Receipt | None:
        """None while the transaction is not in the chain, or no longer is."""
        question = ("0x" + transaction_hash.hex(),)
        answer = await self.rpc.request("eth_getTransactionReceipt", question)
        if answer is None:
            return None
        try:
            return parse_receipt(answer)
        except (KeyError, TypeError, ValueError) as error:
            raise ChainUnavailableError(f"an endpoint gave a broken receipt: {error!r}") from error

    async def payouts(self, receipt: Receipt) -> tuple[Payout, ...]:
        """What each ticket redeemed by one transaction moved; only what succeeded is in it."""
        return payouts_of(await self._at(), receipt.logs)

    async def redeemed(self, recipient: Address, first: int, last: int) -> tuple[bytes, ...]:
        """Transactions in blocks `first` to `last` that redeemed tickets of `recipient`.

        Their receipts tell the payouts. A hint, for after a downtime: nodes may leave events out.
        """
        at = await self._at()
        broker = parse_address(at.broker.address)
        topics = payout_topics(at, recipient)
        logs = logs_between(self.rpc, broker, topics, first, last)
        return tuple(dict.fromkeys([log.transaction_hash async for log in logs]))

    async def resolve(self) -> None:
        """Ask the Controller where the contracts are, at once: after a SetContractInfo event."""
        self._resolved_at = self._clock.monotonic() - _RESOLVE_SECONDS
        await self._at()

    async def _at(self) -> Deployment:
        known = self._deployment
        if known is not None and not self._is_old():
            return known
        async with self._resolving:
            if self._deployment is None or self._is_old():
                await self._resolve()
            if self._deployment is None:
                raise ChainUnavailableError("the Controller was not asked yet")
            return self._deployment

    def _is_old(self) -> bool:
        return self._clock.monotonic() - self._resolved_at >= _RESOLVE_SECONDS

    async def _resolve(self) -> None:
        if self._gate is None:
            self._gate = await open_web3(self.rpc)
        try:
            found = await self._gate.resolve(self.profile)
        except ChainError:
            if self._deployment is None:
                raise
            # What was true ten minutes ago most likely still is; the next look will tell.
            _log.warning("cannot ask the Controller again; the known contracts are used")
        else:
            self._deployment = found
        self._resolved_at = self._clock.monotonic()


@asynccontextmanager
async def open_chain(
    profile: Profile, urls: tuple[str, ...], clock: Clock, *, timeout_seconds: float = 20.0
) -> AsyncIterator[LivepeerChain]:
    """The contracts of `profile` behind the RPC endpoints `urls`.

    Raises WrongChainError if an endpoint serves another chain, ConfigError for what is no URL. If
    no endpoint answers yet it only logs so: every read raises ChainUnavailableError until one does.
    """
    async with open_rpc(urls, profile.chain_id, clock, timeout_seconds=timeout_seconds) as rpc:
        try:
            await rpc.check()
        except ChainUnavailableError as error:
            _log.warning("the chain is out of reach; going on without it", problem=str(error))
        yield LivepeerChain(profile, rpc, clock)


def _transaction(sender: Address, call: Call) -> dict[str, Any]:
    fields: dict[str, Any] = {"from": checksum(sender), "to": checksum(call.to)}
    if call.data:
        fields["data"] = "0x" + call.data.hex()
    if call.value != NO_WEI:
        fields["value"] = hex(call.value)
    if call.gas_limit is not None:
        fields["gas"] = hex(call.gas_limit)
    return fields
