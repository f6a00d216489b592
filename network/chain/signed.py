"""EIP-1559 transactions as bytes."""

from dataclasses import dataclass
from typing import Protocol

from network.chain.fees import Fees
from network.chain.model import Call
from network.identity import keccak
from network.units import Address


class TransactionSigner(Protocol):
    """Holds the key of an account; `network.identity.KeySigner` is one."""

    @property
    def address(self) -> Address: ...

    def sign_digest(self, digest: bytes) -> tuple[int, int, int]: ...


@dataclass(frozen=True, slots=True)
class Attempt:
    """One signed version of a transaction; `created_at` in unix seconds."""

    hash: bytes
    fees: Fees
    raw: bytes
    created_at: float


def sign(
    signer: TransactionSigner,
    call: Call,
    fees: Fees,
    *,
    chain_id: int,
    nonce: int,
    gas_limit: int,
    now: float,
) -> Attempt:
    """`call` as a transaction of `signer`'s account, ready to be broadcast."""
    from eth_account.typed_transactions.typed_transaction import (  # noqa: PLC0415  only with a chain
        TypedTransaction,
    )

    fields = {
        "type": 2,
        "chainId": chain_id,
        "nonce": nonce,
        "maxPriorityFeePerGas": int(fees.tip),
        "maxFeePerGas": int(fees.max_fee),
        "gas": gas_limit,
        "to": call.to,
        "value": int(call.value),
        "data": call.data,
        "accessList": (),
    }
    r, s, y_parity = signer.sign_digest(bytes(TypedTransaction.from_dict(fields).hash()))
    signed = TypedTransaction.from_dict({**fields, "v": y_parity, "r": r, "s": s})
    raw = bytes(signed.encode())
    return Attempt(hash=keccak(raw), fees=fees, raw=raw, created_at=now)
