"""Transactions to Livepeer's contracts, as values that somebody may send."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from network.chain.deployment import Deployment
from network.chain.model import NO_WEI, Call, SignedTicket
from network.identity import checksum, parse_address
from network.units import Address, Wei

if TYPE_CHECKING:
    from web3.contract import AsyncContract

#: The whole of a `rewardCut` or `feeShare`.
WHOLE_SHARE: Final = 1_000_000


class Calls:
    """Made by `LivepeerChain.calls`, for the contracts as they are deployed now."""

    def __init__(self, deployment: Deployment) -> None:
        self._at = deployment

    def redeem(self, winner: SignedTicket) -> Call:
        """Anybody may send it; the recipient gets the fees."""
        arguments = (_tuple(winner), winner.signature, winner.recipient_rand)
        return _call(self._at.broker, "redeemWinningTicket", *arguments)

    def redeem_batch(self, winners: Sequence[SignedTicket]) -> Call:
        """Tickets that cannot be redeemed are skipped in silence: the receipt tells which were."""
        return _call(
            self._at.broker,
            "batchRedeemWinningTickets",
            [_tuple(winner) for winner in winners],
            [winner.signature for winner in winners],
            [winner.recipient_rand for winner in winners],
        )

    def fund_deposit(self, amount: Wei) -> Call:
        """Also ends an unlocking of the sender's funds, as every funding by itself does."""
        return _call(self._at.broker, "fundDeposit", value=amount)

    def fund_reserve(self, amount: Wei) -> Call:
        return _call(self._at.broker, "fundReserve", value=amount)

    def fund_deposit_and_reserve(self, deposit: Wei, reserve: Wei) -> Call:
        value = Wei(deposit + reserve)
        return _call(self._at.broker, "fundDepositAndReserve", deposit, reserve, value=value)

    def unlock(self) -> Call:
        """Begin the wait of `unlockPeriod` rounds before `withdraw`."""
        return _call(self._at.broker, "unlock")

    def cancel_unlock(self) -> Call:
        return _call(self._at.broker, "cancelUnlock")

    def withdraw(self) -> Call:
        """Deposit and reserve back to the sender, once unlocked."""
        return _call(self._at.broker, "withdraw")

    def approve(self, amount: Wei) -> Call:
        """Let the BondingManager take `amount` of the sender's LPT, in its smallest unit."""
        return _call(self._at.token, "approve", self._at.bonding.address, amount)

    def bond(self, amount: Wei, orchestrator: Address) -> Call:
        """Stake approved LPT on `orchestrator`; on oneself to become one from the next round."""
        return _call(self._at.bonding, "bond", amount, checksum(orchestrator))

    def unbond(self, amount: Wei) -> Call:
        """Take stake back, which takes `unbondingPeriod` rounds."""
        return _call(self._at.bonding, "unbond", amount)

    def withdraw_stake(self, lock: int) -> Call:
        """Unbonded LPT of one `unbond`, once its wait is over."""
        return _call(self._at.bonding, "withdrawStake", lock)

    def transcoder(self, reward_cut: int, fee_share: int) -> Call:
        """Both of `WHOLE_SHARE`: what the orchestrator keeps of rewards, and gives of fees."""
        return _call(self._at.bonding, "transcoder", reward_cut, fee_share)

    def reward(self) -> Call:
        """Once a round, by an active orchestrator."""
        return _call(self._at.bonding, "reward")

    def withdraw_fees(self, recipient: Address, amount: Wei) -> Call:
        """Redeemed fees of the sender, as ether, to `recipient`."""
        return _call(self._at.bonding, "withdrawFees", checksum(recipient), amount)

    def initialize_round(self) -> Call:
        """By anybody, once a round; until then nothing can be redeemed."""
        return _call(self._at.rounds, "initializeRound")

    def set_service_uri(self, uri: str, *, ai: bool = True) -> Call:
        """Where gateways find the sender; `ai` in the AIServiceRegistry, else in the older one."""
        registry = self._at.ai_services if ai else self._at.services
        return _call(registry, "setServiceURI", uri)


def _tuple(winner: SignedTicket) -> tuple[object, ...]:
    """The struct in the contract's order."""
    ticket = winner.ticket
    return (
        checksum(ticket.recipient),
        checksum(ticket.sender),
        ticket.face_value,
        ticket.win_prob,
        ticket.sender_nonce,
        ticket.recipient_rand_hash,
        ticket.creation.aux_data,
    )


def _call(contract: "AsyncContract", name: str, *arguments: object, value: Wei = NO_WEI) -> Call:
    data = contract.encode_abi(name, list(arguments))
    return Call(
        to=parse_address(contract.address),
        data=bytes.fromhex(data.removeprefix("0x")),
        value=value,
    )
