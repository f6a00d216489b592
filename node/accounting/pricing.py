"""What a job costs here. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

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
    """Prices in wei per pixel: by model and payer, else by model, else the default."""

    default: Fraction
    models: Mapping[ModelId, Fraction] = field(default_factory=dict)
    payers: Mapping[tuple[ModelId, Address], Fraction] = field(default_factory=dict)

    def price(self, model_id: ModelId, payer: Address) -> Fraction:
        """Return what `payer` is charged for a pixel."""
        special = self.payers.get((model_id, payer))
        return self.models.get(model_id, self.default) if special is None else special

    def highest(self, model_id: ModelId) -> Fraction:
        """Return what nobody is charged more than."""
        special = [price for (model, _), price in self.payers.items() if model == model_id]
        return max(self.models.get(model_id, self.default), *special, Fraction(0))

    def quote(self, model_id: ModelId, payer: Address, pixels: Pixels) -> Quote:
        """Return what a job costs. Raises ValueError for a job without pixels."""
        if pixels <= 0:
            raise ValueError(f"a job of {pixels} pixels has no price")
        price = self.price(model_id, payer)
        return Quote(price, pixels, fee(pixels, price))


def judge_offer(
    quote: Quote, expected: Fraction | None, *, may_omit: bool, model_id: ModelId
) -> Quote | Declined:
    """Compare what the payer expects to pay with our own quote; the quote is what is charged.

    An expected price that nobody checks would let a sender name its own. `may_omit`: unsigned
    gateways off-chain send no payment at all, and are served where anybody is.
    """
    if expected is None:
        if may_omit or quote.price == 0:
            return quote
        return Declined(
            "invalid expected price sent with payment err=expected price missing; "
            f"{model_id} costs {quote.price} wei per pixel here"
        )
    if expected < quote.price:
        return Declined(
            f"expected price {expected} wei per pixel is below the {quote.price} that {model_id} "
            "costs here; ask for a new price"
        )
    return quote
