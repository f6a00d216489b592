"""Livepeer's contracts in memory, by the rules of `Chain`; the contract suite holds it to the real ones.

    chain = FakeChain(clock)
    chain.add_orchestrator(recipient)
    chain.fund(sender, deposit=Wei(10**18), reserve=Wei(10**18))
    chain.next_round()

What is off by a wish: `chain.problem = ChainUnavailableError("down")` makes every read raise it.
"""

from dataclasses import dataclass, field

from network.chain.model import (
    ChainError,
    Head,
    Payout,
    RevertedError,
    SenderInfo,
    SignedTicket,
)
from network.errors import SignatureError
from network.identity import keccak, verify
from network.payments.tickets import CreationRound, rand_hash, wins
from network.runtime.clock import Clock, SystemClock
from network.units import Address, Wei

NO_HASH = bytes(32)
NOBODY = Address(bytes(20))


@dataclass(slots=True)
class Funds:
    """Of one sender. `claimed` is by round and claimant."""

    deposit: int = 0
    reserve: int = 0
    withdraw_round: int = 0
    claimed: dict[tuple[int, Address], int] = field(default_factory=dict)

    def claimed_in(self, round_number: int) -> int:
        return sum(
            amount for (number, _), amount in self.claimed.items() if number == round_number
        )


class FakeChain:
    """Implements `Chain`; the other methods are what happens on the chain."""

    round_length = 20
    unlock_period = 2
    ticket_validity_period = 2

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.problem: ChainError | None = None
        self.is_paused = False
        self.gas_price = Wei(10**8)
        self.l1_block = 10 * self.round_length
        self.last_initialized = self.current_round
        self.hashes = {self.current_round: self._hash(self.current_round)}
        self.funds: dict[Address, Funds] = {}
        #: By the round from which each is active.
        self.pool: dict[Address, int] = {}
        self.used: set[bytes] = set()
        self.balances: dict[Address, Wei] = {}
        self.redemptions = 0

    @property
    def current_round(self) -> int:
        return self.l1_block // self.round_length

    # What happens.

    def mine(self, blocks: int = 1) -> None:
        self.l1_block += blocks

    def next_round(self, rounds: int = 1, *, initialize: bool = True) -> None:
        for _ in range(rounds):
            self.l1_block = (self.current_round + 1) * self.round_length
            if initialize:
                self.initialize_round()

    def initialize_round(self, block_hash: bytes | None = None) -> None:
        """`block_hash` zeros: as Arbitrum sometimes does."""
        number = self.current_round
        self.last_initialized = number
        self.hashes[number] = self._hash(number) if block_hash is None else block_hash

    def add_orchestrator(self, orchestrator: Address) -> None:
        """Bonded to itself; active from the next round on."""
        self._require_round()
        self.pool[orchestrator] = self.current_round + 1

    def fund(self, sender: Address, deposit: Wei, reserve: Wei) -> None:
        """By the sender itself, which ends an unlocking."""
        funds = self.funds.setdefault(sender, Funds())
        funds.deposit += deposit
        funds.reserve += reserve
        funds.withdraw_round = 0

    def unlock(self, sender: Address) -> None:
        funds = self.funds.setdefault(sender, Funds())
        if not funds.deposit and not funds.reserve:
            raise RevertedError("sender deposit and reserve are zero")
        if funds.withdraw_round:
            raise RevertedError("unlock already initiated")
        funds.withdraw_round = self.current_round + self.unlock_period

    def withdraw(self, sender: Address) -> Wei:
        """Leaves `withdraw_round` as it is, like the contract."""
        funds = self.funds.setdefault(sender, Funds())
        if not funds.withdraw_round:
            raise RevertedError("no unlock request in progress")
        if self.current_round < funds.withdraw_round:
            raise RevertedError("account is locked")
        paid = Wei(funds.deposit + funds.reserve)
        funds.deposit = funds.reserve = 0
        return paid

    def redeem(self, winner: SignedTicket) -> Payout:
        """One redemption by anybody; raises RevertedError in the contract's order and words."""
        ticket = winner.ticket
        self._require_redeemable(winner)
        self.used.add(ticket.hash)
        funds = self.funds[ticket.sender]
        from_deposit = min(ticket.face_value, funds.deposit)
        from_reserve = min(
            ticket.face_value - from_deposit, self._claimable(ticket.sender, ticket.recipient)
        )
        if from_deposit + from_reserve and ticket.recipient not in self.pool:
            self.used.discard(ticket.hash)
            raise RevertedError("transcoder must be registered")
        funds.deposit -= from_deposit
        funds.reserve -= from_reserve
        if from_reserve:
            key = (self.current_round, ticket.recipient)
            funds.claimed[key] = funds.claimed.get(key, 0) + from_reserve
        self.redemptions += 1
        self.mine()
        return Payout(
            ticket_hash=ticket.hash,
            amount=Wei(from_deposit + from_reserve),
            transaction_hash=keccak(b"redemption %d" % self.redemptions),
            block_number=self.l1_block,
        )

    def _require_round(self) -> None:
        if self.is_paused:
            raise RevertedError("system is paused")
        if self.last_initialized != self.current_round:
            raise RevertedError("current round is not initialized")

    def _require_redeemable(self, winner: SignedTicket) -> None:
        self._require_round()
        ticket, creation = winner.ticket, winner.ticket.creation
        stored = self.hashes.get(creation.number, NO_HASH)
        funds = self.funds.get(ticket.sender, Funds())
        expired = creation.number + self.ticket_validity_period <= self.current_round
        unlocked = funds.withdraw_round and self.current_round >= funds.withdraw_round
        for is_refused, reason in (
            (ticket.recipient == NOBODY, "ticket recipient is null address"),
            (ticket.sender == NOBODY, "ticket sender is null address"),
            (not creation.aux_data, "invalid length for ticket auxData: must be 64 bytes"),
            (stored == NO_HASH, "ticket creationRound does not have a block hash"),
            (
                stored != creation.block_hash,
                "ticket creationRoundBlockHash invalid for creationRound",
            ),
            (expired, "ticket is expired"),
            (
                rand_hash(winner.recipient_rand) != ticket.recipient_rand_hash,
                "recipientRand does not match recipientRandHash",
            ),
            (ticket.hash in self.used, "ticket is used"),
            (not _is_signed(winner), "invalid signature over ticket hash"),
            (
                not wins(winner.signature, winner.recipient_rand, ticket.win_prob),
                "ticket did not win",
            ),
            (unlocked, "sender is unlocked"),
            (not funds.deposit and not funds.reserve, "sender deposit and reserve are zero"),
        ):
            if is_refused:
                raise RevertedError(reason)

    def _claimable(self, sender: Address, claimant: Address) -> int:
        if not self._is_active(claimant):
            return 0
        funds = self.funds[sender]
        whole = funds.reserve + funds.claimed_in(self.current_round)
        return whole // len(self.pool) - funds.claimed.get((self.current_round, claimant), 0)

    def _is_active(self, orchestrator: Address) -> bool:
        return self.pool.get(orchestrator, self.current_round + 1) <= self.current_round

    def _hash(self, round_number: int) -> bytes:
        return keccak(b"round %d" % round_number)

    # `Chain`.

    async def head(self) -> Head:
        self._answer()
        number = self.last_initialized
        if self.hashes[number] == NO_HASH and self.hashes.get(number - 1, NO_HASH) != NO_HASH:
            number -= 1
        return Head(
            l1_block=self.l1_block,
            current_round=self.current_round,
            last_initialized_round=self.last_initialized,
            creation=CreationRound(number, self.hashes[number]),
            ticket_validity_period=self.ticket_validity_period,
            pool_size=len(self.pool),
            gas_price=self.gas_price,
            is_paused=self.is_paused,
            read_at=self.clock.monotonic(),
        )

    async def sender_info(self, sender: Address) -> SenderInfo:
        self._answer()
        funds = self.funds.get(sender, Funds())
        return SenderInfo(
            deposit=Wei(funds.deposit),
            withdraw_round=funds.withdraw_round,
            reserve_remaining=Wei(funds.reserve),
            reserve_claimed_in_round=Wei(funds.claimed_in(self.current_round)),
        )

    async def claimed_reserve(self, sender: Address, claimant: Address) -> Wei:
        self._answer()
        claimed = self.funds.get(sender, Funds()).claimed
        return Wei(claimed.get((self.current_round, claimant), 0))

    async def is_active(self, orchestrator: Address) -> bool:
        self._answer()
        return self._is_active(orchestrator)

    async def is_registered(self, orchestrator: Address) -> bool:
        self._answer()
        return orchestrator in self.pool

    async def is_used(self, ticket_hash: bytes) -> bool:
        self._answer()
        return ticket_hash in self.used

    async def balance(self, account: Address) -> Wei:
        self._answer()
        return self.balances.get(account, Wei(0))

    def _answer(self) -> None:
        if self.problem is not None:
            raise self.problem


def _is_signed(winner: SignedTicket) -> bool:
    try:
        verify(winner.ticket.sender, winner.ticket.hash, winner.signature)
    except SignatureError:
        return False
    return True
