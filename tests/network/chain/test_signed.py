"""Our transactions are byte for byte what eth-account makes of the same key and fields."""

from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

from network.chain.fees import Fees
from network.chain.model import Call
from network.chain.signed import sign
from network.identity import KeySigner, checksum
from network.units import Address, Wei


@given(
    key=st.integers(1, 2**200).map(lambda number: number.to_bytes(32, "big")),
    to=st.binary(min_size=20, max_size=20).map(Address),
    data=st.binary(max_size=100),
    value=st.integers(0, 2**200).map(Wei),
    nonce=st.integers(0, 2**40),
    fee=st.integers(0, 2**60).map(Wei),
)
def test_a_transaction_is_what_eth_account_makes(
    *, key: bytes, to: Address, data: bytes, value: Wei, nonce: int, fee: Wei
) -> None:
    ours = sign(
        KeySigner(key),
        Call(to, data, value),
        Fees(max_fee=Wei(fee + 7), tip=fee),
        chain_id=412346,
        nonce=nonce,
        gas_limit=50_000,
        now=5.0,
    )
    theirs = Account.from_key(key).sign_transaction(
        {
            "chainId": 412346,
            "nonce": nonce,
            "to": checksum(to),
            "data": data,
            "value": value,
            "gas": 50_000,
            "maxFeePerGas": fee + 7,
            "maxPriorityFeePerGas": fee,
        }
    )
    assert ours.raw == bytes(theirs.raw_transaction)
    assert ours.hash == bytes(theirs.hash)
    assert ours.created_at == 5.0
