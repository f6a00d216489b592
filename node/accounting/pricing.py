"""What a job costs here. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from network.prices import EthRates, FixedRate, NoRateError, Price, Rate, asked_in_wei
from network.units import Address, ModelId, Pixels, Wei, fee


@dataclass(frozen=True, slots=True)
class Quote:
    """A price in wei per pixel and what a job comes to at it."""

    price: Fraction
    pixels: Pixels
    fee: Wei


@dataclass(frozen=True, slots=True)
class Declined:
    """The payer's offer does not do; `reason` may be sent to it."""

    reason: str


@dataclass(frozen=True, slots=True)
class PriceList:
    """Prices for a pixel: by model and payer, else by model, else the default.

    Those in a currency are worth what `rates` say at the moment: nothing of this is kept.
    """

    default: Price
    models: Mapping[ModelId, Price] = field(default_factory=dict)
    payers: Mapping[tuple[ModelId, Address], Price] = field(default_factory=dict)
    rates: EthRates = field(default_factory=FixedRate)

    def base(self) -> Fraction:
        """Return the default in wei per pixel. Raises NoRateError."""
        return asked_in_wei(self.default, self.rates.current)

    def price(self, model_id: ModelId, payer: Address) -> Fraction:
        """Return what `payer` is charged for a pixel, in wei. Raises NoRateError."""
        return asked_in_wei(self.listed(model_id, payer), self.rates.current)

    def listed(self, model_id: ModelId, payer: Address) -> Price:
        """Return the price as the operator wrote it."""
        special = self.payers.get((model_id, payer))
        return self.models.get(model_id, self.default) if special is None else special

    def held(self, model_id: ModelId, payer: Address) -> frozenset[Fraction]:
        """Return every price in wei per pixel that was quoted lately, and so may still be paid."""
        price = self.listed(model_id, payer)
        if isinstance(price, Fraction):
            return frozenset((price,))
        return frozenset(found for rate in self.rates.lately() for found in _at(price, rate))

    def highest(self, model_id: ModelId) -> Fraction:
        """Return what nobody is charged more than for a pixel, in wei. Raises NoRateError."""
        special = [price for (model, _), price in self.payers.items() if model == model_id]
        usual = self.models.get(model_id, self.default)
        return max(asked_in_wei(price, self.rates.current) for price in (usual, *special))

    def quote(self, model_id: ModelId, payer: Address, pixels: Pixels) -> Quote:
        """Return what a job costs. Raises NoRateError, ValueError for a job without pixels."""
        if pixels <= 0:
            raise ValueError(f"a job of {pixels} pixels has no price")
        price = self.price(model_id, payer)
        return Quote(price, pixels, fee(pixels, price))


def judge_offer(
    quote: Quote,
    expected: Fraction | None,
    *,
    may_omit: bool,
    model_id: ModelId,
    held: Collection[Fraction] = (),
) -> Quote | Declined:
    """Compare what the payer expects to pay with our own quote; the quote is what is charged.

    An expected price that nobody checks would let a sender name its own. `held` are prices that this
    payer may have been quoted for this model a moment ago: a rate that moved in between breaks no promise,
    whichever way it moved. `may_omit`: unsigned gateways off-chain send no payment at all, and are served
    where anybody is.
    """
    if expected is None:
        if may_omit or quote.price == 0:
            return quote
        return Declined(
            "invalid expected price sent with payment err=expected price missing; "
            f"{model_id} costs {quote.price} wei per pixel here"
        )
    if expected in held:
        return Quote(expected, quote.pixels, fee(quote.pixels, expected))
    if expected < quote.price:
        # By the first two words Livepeer's gateways ask anew, and do not suspend whom they asked.
        return Declined(
            f"TicketParams expired: the expected price {expected} wei per pixel is below the "
            f"{quote.price} that {model_id} costs here; ask for a new price"
        )
    return quote


def _at(price: Price, rate: Rate) -> tuple[Fraction, ...]:
    """One price, or none where the rate is of no use for it."""
    try:
        return (asked_in_wei(price, rate),)
    except NoRateError:
        return ()
