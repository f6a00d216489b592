"""Who signs: accounts, signatures and session tokens as the network has them.

Two layers of signing exist and must not be mixed: `Signer.sign(m)` is Ethereum's personal
signature over m itself; `sign_hashed(x)` signs keccak(x) and is what go-livepeer calls
`Broadcaster.Sign` (session requests, segments, pings).
"""

import hashlib
import hmac
from typing import Final, Protocol

import coincurve
import sha3
from typing_extensions import override

from network.errors import SignatureError
from network.units import Address

ADDRESS_BYTES: Final = 20
SIGNATURE_BYTES: Final = 65
KEY_BYTES: Final = 32
SESSION_ID_BYTES: Final = 4

_HALF_ORDER: Final = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
_V_OFFSET: Final = 27


class Signer(Protocol):
    """Holds a key somewhere, and signs with it."""

    @property
    def address(self) -> Address:
        """The account whose key signs."""

    def sign(self, message: bytes) -> bytes:
        """Personal signature over `message`: r, s, v in 65 bytes, v 27 or 28."""


class KeySigner:
    """A signer with its key in memory."""

    __slots__ = ("_key", "address")

    def __init__(self, private_key: bytes) -> None:
        """`private_key` is 32 bytes."""
        self._key = coincurve.PrivateKey(private_key)
        #: The account of the key.
        self.address: Final = _address_of(self._key.public_key)

    @override
    def __repr__(self) -> str:
        return f"KeySigner({checksum(self.address)})"

    def sign(self, message: bytes) -> bytes:
        signature = self._key.sign_recoverable(personal_digest(message), hasher=None)
        return signature[:64] + bytes([signature[64] + _V_OFFSET])

    def sign_digest(self, digest: bytes) -> tuple[int, int, int]:
        """r, s and y parity over 32 bytes as they are, which transactions want.

        Never for bytes that somebody else chose: they could be a transaction.
        """
        signature = self._key.sign_recoverable(digest, hasher=None)
        r, s = signature[:32], signature[32:64]
        return int.from_bytes(r, "big"), int.from_bytes(s, "big"), signature[64]


def keccak(data: bytes) -> bytes:
    """Keccak-256, which is not SHA3-256."""
    digest: bytes = sha3.keccak_256(data).digest()
    return digest


def checksum(address: Address) -> str:
    """The mixed-case text of EIP-55, "0x" included; 42 characters."""
    digits = address.hex()
    digest = keccak(digits.encode()).hex()
    cased = (d.upper() if int(h, 16) > 7 else d for d, h in zip(digits, digest, strict=False))  # noqa: PLR2004  EIP-55
    return "0x" + "".join(cased)


def parse_address(text: str) -> Address:
    """20 bytes from 40 hex digits, "0x" optional; mixed case must match its checksum.

    Raises ValueError with a sentence for the operator.
    """
    digits = text.strip().removeprefix("0x").removeprefix("0X")
    try:
        address = Address(bytes.fromhex(digits) if " " not in digits else b"")
    except ValueError:
        address = Address(b"")
    if len(address) != ADDRESS_BYTES:
        raise ValueError(f"{text[:60]!r} is not an address: expected 0x and 40 hex digits")
    mixed = digits not in (digits.lower(), digits.upper())
    if mixed and checksum(address)[2:] != digits:
        raise ValueError(f"{text!r} has a wrong checksum; is there a typing error?")
    return address


def personal_digest(message: bytes) -> bytes:
    """What Ethereum's personal signature signs for `message`."""
    return keccak(b"\x19Ethereum Signed Message:\n%d" % len(message) + message)


def recover(message: bytes, signature: bytes) -> Address:
    """The account that signed `message`.

    Raises SignatureError in go-livepeer's words. High s is refused, so that nobody can make
    a second valid signature out of a first.
    """
    if len(signature) != SIGNATURE_BYTES:
        raise SignatureError("invalid signature length")
    if int.from_bytes(signature[32:64], "big") > _HALF_ORDER:
        raise SignatureError("signature s value too high")
    recovery = signature[64] - _V_OFFSET
    if recovery not in (0, 1):
        raise SignatureError("signature v value must be 27 or 28")
    compact = signature[:64] + bytes([recovery])
    try:
        key = coincurve.PublicKey.from_signature_and_message(
            compact, personal_digest(message), hasher=None
        )
    except Exception as error:  # coincurve raises bare Exception for an impossible r
        raise SignatureError("invalid signature") from error
    return _address_of(key)


def verify(address: Address, message: bytes, signature: bytes) -> None:
    """Raise SignatureError unless `address` signed `message`."""
    if not hmac.compare_digest(recover(message, signature), address):
        raise SignatureError("signature is by another account")


def sign_hashed(signer: Signer, data: bytes) -> bytes:
    """Personal signature over keccak(`data`): go-livepeer's `Broadcaster.Sign`."""
    return signer.sign(keccak(data))


def verify_hashed(address: Address, data: bytes, signature: bytes) -> None:
    """Raise SignatureError unless `address` made `signature` by `sign_hashed` of `data`."""
    verify(address, keccak(data), signature)


def session_request_signature(signer: Signer) -> bytes:
    """What a gateway proves its account with in GetOrchestrator; constant for an account."""
    return sign_hashed(signer, checksum(signer.address).encode())


def verify_session_request(address: Address, signature: bytes) -> None:
    """Raise SignatureError unless `signature` is `session_request_signature` of `address`."""
    verify_hashed(address, checksum(address).encode(), signature)


def auth_token(secret: bytes, session_id: str, expiration: int) -> bytes:
    """The 32-byte token of a session (Livepeer wire, AuthToken); `expiration` in unix seconds."""
    when = expiration.to_bytes((expiration.bit_length() + 7) // 8, "big")
    return hmac.digest(secret, session_id.encode() + when, hashlib.sha256)


def random_session_id(entropy: bytes) -> str:
    """8 hex digits out of 4 random bytes."""
    return entropy[:SESSION_ID_BYTES].hex()


def _address_of(key: coincurve.PublicKey) -> Address:
    return Address(keccak(key.format(compressed=False)[1:])[-ADDRESS_BYTES:])
