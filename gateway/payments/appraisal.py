"""Whether what an orchestrator quotes may be paid at all. Looked at when it quotes, and again when we pay."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Protocol

from gateway.payments.deposit import DepositWatch
from gateway.payments.payer import Quote, StaleQuoteError, UnpayableError
from network.chain.model import ChainError
from network.payments.checks import PARAMS_EXPIRED, PayerLimits, payers_objection
from network.prices import has_more_than_doubled
from network.runtime.clock import Clock
from network.units import Address, ModelId, format_price
from network.wire.session import OrchestratorInfo

#: L1 blocks: a quote that ends so soon is asked for anew, before an orchestrator refuses it.
REFRESH_MARGIN: Final = 2
#: Seconds for which a price is remembered. It may double in that time, and no more.
PRICE_MEMORY: Final = 600.0
_ACTIVE_SECONDS: Final = 5.0
_MOST_REMEMBERED: Final = 65_536


class Activity(Protocol):
    """`network.chain.watch.ChainWatch`."""

    async def is_active(self, orchestrator: Address) -> bool: ...


@dataclass(frozen=True, slots=True)
class Payees:
    """Whom tickets may pay at one URI."""

    #: Registered for it, or named by the operator.
    accounts: frozenset[Address] = frozenset()
    #: And the account that the orchestrator gives as its own.
    any_named: bool = True


def payees_of(pinned: Mapping[str, Address]) -> Callable[[str], Payees]:
    """Those that the operator named, by URI; elsewhere whichever account is given."""

    def payees(uri: str) -> Payees:
        account = pinned.get(uri)
        return Payees() if account is None else Payees(frozenset({account}), any_named=False)

    return payees


@dataclass(frozen=True, slots=True)
class _Remembered:
    price: Fraction
    since: float


class Appraiser:
    """The payer's side of a quote; `payees` tells whom tickets may pay at a URI."""

    def __init__(
        self,
        deposit: DepositWatch,
        activity: Activity,
        limits: PayerLimits,
        clock: Clock,
        payees: Callable[[str], Payees],
    ) -> None:
        self._deposit = deposit
        self._activity = activity
        self._limits = limits
        self._clock = clock
        self._payees = payees
        self._prices: dict[tuple[str, ModelId], _Remembered] = {}

    async def objections(
        self, uri: str, named: Address | None, replies: Mapping[ModelId, OrchestratorInfo]
    ) -> dict[ModelId, str]:
        """Why models of one orchestrator cannot be paid for; those that can be are not in it.

        `named` is the account that it gives as its own, `replies` its answers for one model each.
        """
        found: dict[ModelId, str] = {}
        for model_id, info in replies.items():
            try:
                await self._appraise(uri, named, model_id, info)
            except StaleQuoteError:
                continue  # another look mends that, and whoever wants to pay takes one
            except UnpayableError as error:
                found[model_id] = str(error)
        return found

    def account(self, uri: str, named: Address | None, recipient: Address) -> Address:
        """Whom tickets may pay at `uri`, of those that may the `recipient` of the quote, if it is one.

        An orchestrator may name one account as its own and have tickets pay another that it registered,
        as go-livepeer's do with `-ethOrchAddr`. Raises UnpayableError.
        """
        payees = self._payees(uri)
        if recipient in payees.accounts:
            return recipient
        if not payees.any_named:
            raise UnpayableError(
                f"tickets would pay 0x{recipient.hex()}, which is not the account known for {uri}"
            )
        if named is None:
            raise UnpayableError("it names no account that could be paid")
        return named

    def check(self, quote: Quote, count: int, account: Address) -> None:
        """Raise UnpayableError unless `count` tickets may be signed for it now.

        StaleQuoteError where a newer quote would do. Raises ChainUnavailableError.
        """
        now = self._deposit.now
        objection = payers_objection(
            quote.params,
            count,
            orchestrator=account,
            now=now,
            funds=self._deposit.funds,
            limits=self._limits,
        )
        ends_soon = quote.params.expiration_block - now.l1_block <= REFRESH_MARGIN
        if objection == PARAMS_EXPIRED or (objection is None and ends_soon):
            raise StaleQuoteError(PARAMS_EXPIRED)
        if (
            objection is not None
            and quote.params.creation.number == now.last_initialized_round + 1
        ):
            # It saw a round begin that we shall see in a moment.
            raise StaleQuoteError(objection)
        if objection is not None:
            raise UnpayableError(objection)

    async def _appraise(
        self, uri: str, named: Address | None, model_id: ModelId, info: OrchestratorInfo
    ) -> None:
        if is_free(info):
            return
        quote = Quote.of(model_id, info)
        self._check_price(uri, quote)
        if self._deposit.problem():
            # It is ours, not the orchestrator's: whoever wants to pay is told.
            return
        account = self.account(uri, named, quote.params.recipient)
        self.check(quote, 1, account)
        try:
            async with asyncio.timeout(_ACTIVE_SECONDS):
                is_active = await self._activity.is_active(account)
        except (ChainError, TimeoutError):
            raise UnpayableError("whether it is active cannot be read from the chain") from None
        if not is_active:
            raise UnpayableError(
                f"0x{account.hex()} is no active orchestrator in this round: it could redeem nothing"
            )

    def _check_price(self, uri: str, quote: Quote) -> None:
        price, now = quote.info.price, self._clock.monotonic()
        known = self._prices.get((uri, quote.model_id))
        if price is None:
            return
        if known is None or now - known.since > PRICE_MEMORY:
            self._remember(uri, quote.model_id, _Remembered(price, now))
        elif has_more_than_doubled(price, known.price):
            raise UnpayableError(
                f"Orchestrator price has more than doubled, from {format_price(known.price)} to "
                f"{format_price(price)} wei per pixel"
            )

    def _remember(self, uri: str, model_id: ModelId, price: _Remembered) -> None:
        """Orchestrators choose the names of their models, so that what is kept is bounded."""
        if len(self._prices) >= _MOST_REMEMBERED:
            del self._prices[next(iter(self._prices))]
        self._prices[uri, model_id] = price


def is_free(info: OrchestratorInfo) -> bool:
    """Whether the work costs nothing, so that there is nothing to pay with or to quote."""
    return info.price is not None and info.price == 0
