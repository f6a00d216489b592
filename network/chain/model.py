"""What the chain says, as values, and the questions that payments ask it."""

from dataclasses import dataclass
from typing import Final, Protocol

from network.errors import LimnerError
from network.payments.tickets import CreationRound, Ticket
from network.units import Address, Wei

NO_WEI: Final = Wei(0)


class ChainError(LimnerError):
    """The chain could not be asked, or its answer is no answer; nothing was changed."""


class ChainUnavailableError(ChainError):
    """No RPC endpoint answers, or what was read last is too old to act on. It may pass."""


class WrongChainError(ChainError):
    """An endpoint serves another chain than the configured one; its operator has to mend it."""


class RefusedError(ChainError):
    """An endpoint answered with an error of its own: the request cannot succeed as it stands."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(f"the RPC endpoint refuses: {message}")
        self.message = message
        self.code = code


class RevertedError(ChainError):
    """A contract refuses the call; `reason` is its revert string, "" where it gives none."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the contract refused: {reason or 'without a reason'}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Head:
    """The moving state that tickets depend on, read at one moment.

    Blocks are L1 blocks as contracts see them (`RoundsManager.blockNum`), never L2's. `creation` is
    what new tickets carry: the last initialised round, or the one before it where the chain stored no
    hash for it. `gas_price` in wei. `read_at` in monotonic seconds of whoever read it.
    """

    l1_block: int
    current_round: int
    last_initialized_round: int
    creation: CreationRound
    ticket_validity_period: int
    pool_size: int
    gas_price: Wei
    is_paused: bool
    read_at: float

    @property
    def is_round_initialized(self) -> bool:
        """Nothing can be redeemed, bonded or rewarded until somebody initialises the round."""
        return self.current_round == self.last_initialized_round

    @property
    def oldest_valid_round(self) -> int:
        """The oldest creation round whose tickets can still be redeemed: `creation + period > current`."""
        return self.current_round - self.ticket_validity_period + 1


@dataclass(frozen=True, slots=True)
class SenderInfo:
    """A payer's funds in the TicketBroker. `withdraw_round` 0: not unlocking."""

    deposit: Wei
    withdraw_round: int
    reserve_remaining: Wei
    reserve_claimed_in_round: Wei


@dataclass(frozen=True, slots=True)
class Payout:
    """What one redemption moved, by its WinningTicketTransfer event; 0 wei is possible."""

    ticket_hash: bytes
    amount: Wei
    transaction_hash: bytes
    block_number: int


@dataclass(frozen=True, slots=True)
class Call:
    """What a transaction does: `data` sent to a contract, with `value` wei.

    `gas_limit` None: estimated just before it is signed.
    """

    to: Address
    data: bytes = b""
    value: Wei = NO_WEI
    gas_limit: int | None = None


@dataclass(frozen=True, slots=True)
class Log:
    """One event of a contract, as its bytes."""

    address: Address
    topics: tuple[bytes, ...]
    data: bytes
    block_number: int
    transaction_hash: bytes
    index: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a mined transaction. `gas_price` is what was paid, in wei per gas."""

    transaction_hash: bytes
    block_number: int
    block_hash: bytes
    is_successful: bool
    gas_used: int
    gas_price: Wei
    logs: tuple[Log, ...] = ()

    @property
    def cost(self) -> Wei:
        """Wei that the gas cost, the L1 part on Arbitrum included."""
        return Wei(self.gas_used * self.gas_price)


@dataclass(frozen=True, slots=True)
class SignedTicket:
    """All that a redemption needs."""

    ticket: Ticket
    signature: bytes
    recipient_rand: int


class Chain(Protocol):
    """Reads of Livepeer's contracts. Every method raises ChainUnavailableError or ChainError."""

    async def head(self) -> Head: ...

    async def sender_info(self, sender: Address) -> SenderInfo: ...

    async def claimed_reserve(self, sender: Address, claimant: Address) -> Wei:
        """What `claimant` took of the sender's reserve in the current round."""
        ...

    async def is_active(self, orchestrator: Address) -> bool: ...

    async def is_registered(self, orchestrator: Address) -> bool: ...

    async def is_used(self, ticket_hash: bytes) -> bool: ...

    async def balance(self, account: Address) -> Wei:
        """The account's own ether, which pays for gas."""
        ...


class ChainView(Protocol):
    """The chain as it was read last, for those who cannot wait for it."""

    @property
    def head(self) -> Head:
        """Raises ChainUnavailableError where it is too old to act on."""
        ...

    async def sender_info(self, sender: Address) -> SenderInfo:
        """As of the last head, or read now. Raises ChainUnavailableError."""
        ...

    async def claimed_reserve(self, sender: Address, claimant: Address) -> Wei: ...

    async def is_active(self, orchestrator: Address) -> bool: ...


class Transactions(Protocol):
    """Sends transactions of one account."""

    @property
    def account(self) -> Address: ...

    async def send(self, call: Call, purpose: str, *, max_fee: Wei | None = None) -> Receipt:
        """Have `call` executed once, and wait until it is; see `network.chain.transactions`."""
        ...

    def allow(self, purpose: str, max_fee: Wei) -> None:
        """Let what is under way for `purpose` offer up to so much per gas."""
        ...
