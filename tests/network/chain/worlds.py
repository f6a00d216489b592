"""The two chains that the contract suite runs on, behind one set of wishes."""

from typing import Protocol

from network.chain.contracts import LivepeerChain
from network.chain.model import Chain, Payout, RevertedError, SignedTicket
from network.devnet.deployment import account_of
from network.identity import KeySigner, keccak
from network.payments.tickets import CERTAIN, Ticket, rand_hash
from network.units import Address, Wei
from tests.devnet import Devnet
from tests.network.chain.fake_chain import NO_HASH, FakeChain

RAND = 4711


class World(Protocol):
    """A chain, and what others do on it."""

    @property
    def chain(self) -> Chain: ...

    async def orchestrator(self) -> KeySigner: ...

    async def sender(self, deposit: int, reserve: int) -> KeySigner: ...

    async def unlock(self, sender: KeySigner) -> None: ...

    async def next_round(self, *, initialize: bool = True) -> None: ...

    async def lose_round_hash(self) -> None:
        """As Arbitrum sometimes does: the round is initialised without a block hash."""

    async def pause(self) -> None: ...

    async def redeem(self, winner: SignedTicket) -> Payout:
        """Raises RevertedError."""
        ...


async def winner(
    chain: Chain, sender: KeySigner, recipient: Address, face_value: int, nonce: int = 1
) -> SignedTicket:
    """A ticket that wins all but surely, made in the current round."""
    ticket = Ticket(
        recipient=recipient,
        sender=sender.address,
        face_value=Wei(face_value),
        win_prob=CERTAIN,
        sender_nonce=nonce,
        recipient_rand_hash=rand_hash(RAND),
        creation=(await chain.head()).creation,
    )
    return SignedTicket(ticket, sender.sign(ticket.hash), RAND)


class FakeWorld:
    def __init__(self) -> None:
        self.chain = FakeChain()
        self._accounts = 0

    async def orchestrator(self) -> KeySigner:
        made = self._account()
        self.chain.add_orchestrator(made.address)
        return made

    async def sender(self, deposit: int, reserve: int) -> KeySigner:
        made = self._account()
        self.chain.fund(made.address, Wei(deposit), Wei(reserve))
        return made

    async def unlock(self, sender: KeySigner) -> None:
        self.chain.unlock(sender.address)

    async def next_round(self, *, initialize: bool = True) -> None:
        self.chain.next_round(initialize=initialize)

    async def lose_round_hash(self) -> None:
        self.chain.initialize_round(NO_HASH)

    async def pause(self) -> None:
        self.chain.is_paused = True

    async def redeem(self, winner: SignedTicket) -> Payout:
        return self.chain.redeem(winner)

    def _account(self) -> KeySigner:
        self._accounts += 1
        made = KeySigner(keccak(b"fake account %d" % self._accounts))
        self.chain.balances[made.address] = Wei(10**20)
        return made


class DevnetWorld:
    """The real contracts on anvil, read by our own client."""

    def __init__(self, devnet: Devnet, chain: LivepeerChain) -> None:
        self.devnet = devnet
        self.chain = chain
        self._keys: dict[Address, bytes] = {}

    async def orchestrator(self) -> KeySigner:
        return self._kept(bytes((await self.devnet.orchestrator()).key))

    async def sender(self, deposit: int, reserve: int) -> KeySigner:
        return self._kept(bytes((await self.devnet.sender(deposit, reserve)).key))

    async def unlock(self, sender: KeySigner) -> None:
        call = self.devnet.contracts.contract("TicketBroker").functions.unlock()
        await self.devnet.contracts.send(account_of(self._keys[sender.address]), call)

    async def next_round(self, *, initialize: bool = True) -> None:
        await self.devnet.next_round(initialize=initialize)

    async def lose_round_hash(self) -> None:
        contracts = self.devnet.contracts
        number = (await self.chain.head()).last_initialized_round
        call = contracts.contract("RoundsManager").functions.setBlockHashForRound(number, NO_HASH)
        await contracts.send(contracts.owner, call)

    async def pause(self) -> None:
        contracts = self.devnet.contracts
        await contracts.send(contracts.owner, contracts.contract("Controller").functions.pause())

    async def redeem(self, winner: SignedTicket) -> Payout:
        call = (await self.chain.calls()).redeem(winner)
        owner = Address(bytes.fromhex(self.devnet.contracts.owner.address[2:]))
        await self.chain.check_call(owner, call)
        sent = await self.devnet.contracts.send(
            self.devnet.contracts.owner,
            {"to": self.devnet.web3.to_checksum_address(call.to), "data": call.data, "gas": 10**6},
        )
        receipt = await self.chain.receipt(bytes(sent["transactionHash"]))
        assert receipt is not None
        (payout,) = await self.chain.payouts(receipt)
        return payout

    def _kept(self, key: bytes) -> KeySigner:
        signer = KeySigner(key)
        self._keys[signer.address] = key
        return signer


async def refusal(world: World, winner: SignedTicket) -> str:
    """Why a redemption reverts; "" for one that does not."""
    try:
        await world.redeem(winner)
    except RevertedError as error:
        return error.reason
    return ""
