"""What the tests of our contracts share: who is on the chain, tickets between them, refusals read."""

from dataclasses import dataclass
from typing import Any

from eth_account.signers.local import LocalAccount
from web3.exceptions import ContractLogicError
from web3.logs import DISCARD

from network.identity import KeySigner
from network.payments.signing import TicketSeries
from network.payments.tickets import CERTAIN, CreationRound, TicketParams, rand_hash, ticket_of
from network.units import Address, Wei
from tests.devnet import Devnet

RAND = 4711


@dataclass(slots=True)
class Redemption:
    """The arguments of one call, each of which a test may spoil."""

    fields: list[Any]
    signature: bytes
    rand: int

    @property
    def arguments(self) -> tuple[Any, ...]:
        return tuple(self.fields), self.signature, self.rand


@dataclass(slots=True)
class Bench:
    """An active orchestrator, a funded sender, and tickets between them."""

    devnet: Devnet
    orchestrator: LocalAccount
    sender: LocalAccount

    @property
    def broker(self) -> Any:
        return self.devnet.contracts.contract("TicketBroker")

    async def creation(self) -> CreationRound:
        rounds = self.devnet.contracts.contract("RoundsManager").functions
        number = await rounds.lastInitializedRound().call()
        return CreationRound(number, bytes(await rounds.blockHashForRound(number).call()))

    async def winner(
        self,
        *,
        face_value: int = 1000,
        nonce: int = 1,
        win_prob: int = CERTAIN,
        recipient: LocalAccount | None = None,
        creation: CreationRound | None = None,
    ) -> Redemption:
        """A ticket that wins, with all that its redemption needs."""
        account = recipient or self.orchestrator
        params = TicketParams(
            Address(bytes.fromhex(account.address[2:])),
            Wei(face_value),
            win_prob,
            rand_hash(RAND),
            b"",
            1,
            creation or await self.creation(),
        )
        signer = KeySigner(bytes(self.sender.key))
        signature = TicketSeries(params, signer.address).sign(signer, nonce)
        ticket = ticket_of(params, signer.address, nonce)
        fields = [
            account.address,
            self.sender.address,
            ticket.face_value,
            ticket.win_prob,
            nonce,
            ticket.recipient_rand_hash,
            ticket.creation.aux_data,
        ]
        return Redemption(fields, signature, RAND)

    async def redeem(self, redemption: Redemption, by: LocalAccount | None = None) -> Any:
        call = self.broker.functions.redeemWinningTicket(*redemption.arguments)
        return await self.devnet.contracts.send(by or self.orchestrator, call)

    async def refusal(self, redemption: Redemption) -> str:
        """Why a redemption would revert; "" for one that would not."""
        call = self.broker.functions.redeemWinningTicket(*redemption.arguments)
        return await refusal(call, self.orchestrator)

    async def funds(self) -> tuple[int, int, int, int]:
        """deposit, withdraw round, reserve left, reserve claimed in this round."""
        (deposit, withdraw), (left, claimed) = await self.broker.functions.getSenderInfo(
            self.sender.address
        ).call()
        return deposit, withdraw, left, claimed

    def paid(self, receipt: Any) -> list[int]:
        """Of each transfer that the transaction made."""
        return [
            event["amount"]
            for event in self.told("TicketBroker", "WinningTicketTransfer", receipt)
        ]

    def told(self, contract: str, event: str, receipt: Any) -> list[dict[str, Any]]:
        """The arguments of every such event of the transaction."""
        kind = self.devnet.contracts.contract(contract).events[event]()
        found = kind.process_receipt(receipt, errors=DISCARD)
        return [dict(one["args"]) for one in found]


async def refusal(call: Any, by: LocalAccount, value: int = 0) -> str:
    """Why a call would revert; "" for one that would not."""
    try:
        await call.call({"from": by.address, "value": value})
    except ContractLogicError as error:
        return str(error.message).removeprefix("execution reverted: ")
    return ""
