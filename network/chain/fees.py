"""What a transaction offers per gas (EIP-1559). Pure."""

from dataclasses import dataclass

from network.chain.model import ChainError
from network.units import Wei, format_wei


class GasPriceError(ChainError):
    """Gas costs more than may be paid; nothing was sent. It passes when the price falls."""


@dataclass(frozen=True, slots=True)
class Fees:
    """Wei per gas: `max_fee` at most in all, of which `tip` to the block's producer."""

    max_fee: Wei
    tip: Wei


def first_fees(base_fee: Wei, tip: Wei, most: Wei) -> Fees:
    """Room for the base fee to double, within `most`.

    Raises GasPriceError when `most` does not even pay for the next block.
    """
    if base_fee + tip > most:
        raise GasPriceError(
            f"gas costs {format_wei(Wei(base_fee + tip))}, more than the {format_wei(most)} that "
            "may be paid (chain.gas.max_fee_gwei)"
        )
    return Fees(max_fee=Wei(min(most, 2 * base_fee + tip)), tip=tip)


def replacement_fees(before: Fees, base_fee: Wei, tip: Wei, most: Wei) -> Fees | None:
    """What replaces a transaction that offers `before`; None where `most` leaves no room.

    Nodes take a replacement only if both fees are a tenth higher, some an eighth: an eighth it is,
    rounded up, and never less than one wei more.
    """
    new_tip = max(_bumped(before.tip), tip)
    least = max(_bumped(before.max_fee), new_tip)
    if least > most:
        return None
    return Fees(max_fee=Wei(min(most, max(least, 2 * base_fee + new_tip))), tip=Wei(new_tip))


def _bumped(fee: Wei) -> int:
    return max(fee + 1, -(-fee * 9 // 8))
