"""What the signer remembers of a client between two calls: nothing. The client carries it.

The state is a JSON object that goes out with the signer's signature over its very bytes and comes
back with the next call. Whoever changes a byte loses it; an old one that is shown again makes the
same tickets again, which an orchestrator takes once.
"""

import binascii
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import Final, Self

import msgspec
import pybase64

from gateway.signer.charging import JobType
from network.errors import SignatureError
from network.identity import Signer, checksum, parse_address, verify
from network.units import Address

_MOST_BYTES: Final = 16 * 1024


class StateError(Exception):
    """The state is not one that this signer gave out."""


@dataclass(frozen=True, slots=True)
class PaymentState:
    """One client's session at one orchestrator."""

    state_id: str
    orchestrator: Address
    #: hash of the recipientRand that the nonces belong to; b"" before the first ticket.
    rand_hash: bytes = b""
    #: The last nonce that was signed for `rand_hash`.
    nonce: int = 0
    #: Wei that tickets brought beyond what calls cost.
    balance: Fraction = Fraction(0)
    #: Unix time in milliseconds of the last payment.
    updated_ms: int = 0
    #: The price that the session began at; a later one may be at most twice as high.
    initial_price: Fraction = Fraction(0)
    job: JobType = JobType.PIXELS
    app: str = ""
    sequence: int = 0
    #: Whom the webhook says the client is, and until when (unix seconds) it said so.
    auth_id: str = ""
    auth_expiry: int = 0

    def tell(self) -> dict[str, object]:
        """The object that clients carry and the webhook reads, in go-livepeer's field names."""
        return {
            "StateID": self.state_id,
            "PMSessionID": self.rand_hash.hex(),
            "LastUpdate": datetime.fromtimestamp(self.updated_ms / 1000, UTC).isoformat(
                timespec="milliseconds"
            ),
            "OrchestratorAddress": checksum(self.orchestrator),
            "App": self.app,
            "AuthExpiry": self.auth_expiry,
            "SenderNonce": self.nonce,
            "Balance": str(self.balance),
            "InitialPricePerUnit": self.initial_price.numerator,
            "InitialPixelsPerUnit": self.initial_price.denominator,
            "Type": self.job.value,
            "SequenceNumber": self.sequence,
            "AuthID": self.auth_id,
        }

    @classmethod
    def read(cls, told: "_Told") -> Self:
        """Raises ValueError for what `tell` never says."""
        return cls(
            state_id=told.StateID,
            orchestrator=parse_address(told.OrchestratorAddress),
            rand_hash=bytes.fromhex(told.PMSessionID),
            nonce=told.SenderNonce,
            balance=Fraction(told.Balance),
            updated_ms=round(datetime.fromisoformat(told.LastUpdate).timestamp() * 1000),
            initial_price=Fraction(told.InitialPricePerUnit, told.InitialPixelsPerUnit),
            job=JobType(told.Type),
            app=told.App,
            sequence=told.SequenceNumber,
            auth_id=told.AuthID,
            auth_expiry=told.AuthExpiry,
        )


class _Told(msgspec.Struct, frozen=True):
    StateID: str
    PMSessionID: str
    LastUpdate: str
    OrchestratorAddress: str
    App: str
    AuthExpiry: int
    SenderNonce: int
    Balance: str
    InitialPricePerUnit: int
    InitialPixelsPerUnit: int
    Type: str
    SequenceNumber: int
    AuthID: str


_decoder = msgspec.json.Decoder(_Told)


def seal(signer: Signer, state: PaymentState) -> dict[str, str]:
    """What a client is given to bring back: {"State", "Sig"}, both base64."""
    content = msgspec.json.encode(state.tell())
    return {
        "State": pybase64.b64encode_as_string(content),
        "Sig": pybase64.b64encode_as_string(signer.sign(content)),
    }


def unseal(signer_address: Address, state: str, signature: str) -> PaymentState:
    """The state that a client brought back. Raises StateError unless this signer sealed it."""
    if len(state) > _MOST_BYTES:
        raise StateError("the state is too long to be one of this signer's")
    try:
        content = pybase64.b64decode(state, validate=True)
        # Before a byte of it is read: what is not signed is a stranger's.
        verify(signer_address, content, pybase64.b64decode(signature, validate=True))
        return PaymentState.read(_decoder.decode(content))
    except SignatureError as error:
        raise StateError(f"the state is not signed by this signer: {error}") from None
    except (binascii.Error, ValueError, OverflowError, msgspec.MsgspecError):
        raise StateError("the state is not one of this signer's") from None


def with_authorization(state: PaymentState, auth_id: str, expiry: int) -> PaymentState:
    return replace(state, auth_id=auth_id, auth_expiry=expiry)
