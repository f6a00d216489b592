"""How both ends of a link prove who they are, before anything else is said. Pure.

    gateway  Challenge   a fresh nonce
    node     Claim       its account, a nonce of its own, its signature
    gateway  Welcome     its signature

Both sign the same sentence but for its role: both accounts, both nonces, and the SHA-256 of the TLS
certificate that the gateway showed. Whoever stands in between shows another certificate, so neither
signature is of use to it; a recorded one answers no other nonce. What is signed is a text of some
hundred characters, while tickets, segments and session requests are signed as 32 bytes.
"""

from typing import Annotated, Final, Literal, TypeVar

import msgspec

from network.errors import SignatureError, WireError
from network.identity import Signer, checksum, parse_address, verify
from network.units import Address

LARGEST_GREETING: Final = 2048
NONCE_BYTES: Final = 32
SHORTEST_SILENCE: Final = 0.2
LONGEST_SILENCE: Final = 120.0

Role = Literal["node", "gateway"]
_Nonce = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_Signature = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{130}$")]
_Address = Annotated[str, msgspec.Meta(pattern="^0x[0-9a-fA-F]{40}$")]


class Challenge(msgspec.Struct, frozen=True):
    """The gateway's first words."""

    nonce: _Nonce


class Claim(msgspec.Struct, frozen=True):
    """The node's answer. `jobs`: it takes jobs over the link; otherwise it only pushes, and can be

    called at `uri`.
    """

    address: _Address
    nonce: _Nonce
    signature: _Signature
    jobs: bool = True
    uri: Annotated[str, msgspec.Meta(max_length=300)] = ""


class Welcome(msgspec.Struct, frozen=True):
    """The gateway's proof. After so many silent seconds either side takes the link for dead."""

    signature: _Signature
    silence_seconds: Annotated[float, msgspec.Meta(ge=SHORTEST_SILENCE, le=LONGEST_SILENCE)]


Greeting = TypeVar("Greeting", Challenge, Claim, Welcome)


class Terms(msgspec.Struct, frozen=True):
    """What both ends sign, as each of them sees it."""

    node: Address
    gateway: Address
    node_nonce: str
    gateway_nonce: str
    #: SHA-256 of the gateway's certificate in DER.
    certificate: bytes

    def sentence(self, role: Role) -> bytes:
        """What the one in this role signs."""
        return (
            f"Limner link 1: I am the {role}.\n"
            f"node {checksum(self.node)} {self.node_nonce}\n"
            f"gateway {checksum(self.gateway)} {self.gateway_nonce}\n"
            f"certificate {self.certificate.hex()}\n"
        ).encode()

    def proof(self, role: Role, signer: Signer) -> str:
        """The signature in hex."""
        return signer.sign(self.sentence(role)).hex()

    def check(self, role: Role, signature: str) -> None:
        """Raise SignatureError unless the account in this role signed."""
        account = self.node if role == "node" else self.gateway
        verify(account, self.sentence(role), bytes.fromhex(signature))


def write(greeting: Challenge | Claim | Welcome) -> str:
    """One text message."""
    return msgspec.json.encode(greeting).decode()


def read(kind: type[Greeting], text: str) -> Greeting:
    """Raises WireError."""
    if len(text) > LARGEST_GREETING:
        raise WireError(f"a greeting of {len(text)} characters")
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise WireError(f"what came is no {kind.__name__.lower()}") from None


def claimed_account(claim: Claim) -> Address:
    """Raises SignatureError."""
    try:
        return parse_address(claim.address)
    except ValueError:
        raise SignatureError("the claim names no account") from None
