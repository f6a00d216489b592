"""Who signs: accounts, signatures and keystores as Ethereum has them.

Two layers of signing exist and must not be mixed: `Signer.sign(m)` is Ethereum's personal
signature over m itself; `sign_hashed(x)` signs keccak(x) and is what go-livepeer calls
`Broadcaster.Sign` (session requests, segments, pings).
"""

import asyncio
import contextlib
import hashlib
import hmac
import os
import secrets
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import coincurve
import orjson
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from eth_hash.auto import keccak as _keccak
from typing_extensions import override

from network.errors import ConfigError, SignatureError
from network.units import Address

ADDRESS_BYTES: Final = 20
SIGNATURE_BYTES: Final = 65
KEY_BYTES: Final = 32
SESSION_ID_BYTES: Final = 4
#: Opening takes 64 MiB and half a second. Ethereum's usual 2**18 takes 256 MiB, more than
#: the rest of a gateway; keystores made with it are opened all the same.
SCRYPT_N: Final = 2**16

_HALF_ORDER: Final = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
_V_OFFSET: Final = 27
_KEYSTORE_NAME: Final = "keystore.json"
_MOST_KEYSTORE_BYTES: Final = 64 * 1024
_MOST_SCRYPT_MEMORY: Final = 512 * 1024 * 1024
_MOST_SCRYPT_PASSES: Final = 16
_MOST_PBKDF2_ROUNDS: Final = 10_000_000
_OWNER_ONLY: Final = 0o600


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


def keccak(data: bytes) -> bytes:
    """Keccak-256, which is not SHA3-256."""
    return _keccak(data)


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


async def load_or_create(
    directory: Path, passphrase: str, *, scrypt_n: int = SCRYPT_N
) -> KeySigner:
    """The account of a data directory, made at first start.

    Raises ConfigError if the keystore is unreadable or the passphrase is wrong.
    """
    path = directory / _KEYSTORE_NAME
    if not await asyncio.to_thread(path.exists):
        key = secrets.token_bytes(KEY_BYTES)
        # Two processes may start on one new directory: the first file written wins for both.
        with contextlib.suppress(FileExistsError):
            await create_keystore(path, passphrase, key, scrypt_n=scrypt_n)
            return KeySigner(key)
    return await open_keystore(path, passphrase)


async def create_keystore(
    path: Path, passphrase: str, private_key: bytes, *, scrypt_n: int = SCRYPT_N
) -> None:
    """Write `private_key` as a version 3 keystore that only the owner can read.

    Never overwrites: raises FileExistsError. Takes half a second, off the event loop.
    """
    await asyncio.to_thread(_write_keystore, path, passphrase, private_key, scrypt_n)


async def open_keystore(path: Path, passphrase: str) -> KeySigner:
    """The signer in a version 3 keystore, ours or another program's.

    Takes half a second, off the event loop. Raises ConfigError naming the file.
    """
    return await asyncio.to_thread(_read_keystore, path, passphrase)


def _write_keystore(path: Path, passphrase: str, private_key: bytes, scrypt_n: int) -> None:
    content = _sealed(private_key, passphrase, scrypt_n)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Complete and on disk under another name first: a half-written key is a lost account.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(orjson.dumps(content))
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(draft)
    finally:
        draft.unlink()


def _read_keystore(path: Path, passphrase: str) -> KeySigner:
    try:
        with path.open("rb") as file:
            content = orjson.loads(file.read(_MOST_KEYSTORE_BYTES))
    except (OSError, orjson.JSONDecodeError) as error:
        raise ConfigError("keystore", f"cannot read {path}: {error}") from error
    try:
        key = _unsealed(content, passphrase)
    except ConfigError as error:
        raise ConfigError("keystore", f"cannot open {path}: {error.problem}") from None
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError("keystore", f"{path} is not a version 3 keystore") from error
    return KeySigner(key)


def _sealed(private_key: bytes, passphrase: str, scrypt_n: int) -> dict[str, Any]:
    """A keystore in Web3 Secret Storage, version 3, as every Ethereum client reads it."""
    salt, start = secrets.token_bytes(32), secrets.token_bytes(16)
    params = {"dklen": 32, "n": scrypt_n, "r": 8, "p": 1, "salt": salt.hex()}
    derived = _derived("scrypt", params, passphrase)
    text = _aes_ctr(derived[:16], start, private_key)
    crypto = {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": start.hex()},
        "ciphertext": text.hex(),
        "kdf": "scrypt",
        "kdfparams": params,
        "mac": keccak(derived[16:32] + text).hex(),
    }
    address = KeySigner(private_key).address.hex()
    return {"version": 3, "id": str(uuid.uuid4()), "address": address, "crypto": crypto}


def _unsealed(content: Any, passphrase: str) -> bytes:
    """The private key; raises whatever a malformed `content` leads to."""
    crypto = content.get("crypto") or content["Crypto"]
    if content["version"] != 3 or crypto["cipher"] != "aes-128-ctr":  # noqa: PLR2004  the format's
        raise ConfigError("keystore", "only version 3 with aes-128-ctr can be read")
    text = bytes.fromhex(crypto["ciphertext"])
    derived = _derived(crypto["kdf"], crypto["kdfparams"], passphrase)
    if not hmac.compare_digest(keccak(derived[16:32] + text), bytes.fromhex(crypto["mac"])):
        raise ConfigError("keystore", "the passphrase is wrong")
    return _aes_ctr(derived[:16], bytes.fromhex(crypto["cipherparams"]["iv"]), text)


def _derived(kdf: str, params: Mapping[str, Any], passphrase: str) -> bytes:
    """32 bytes out of the passphrase; a file cannot ask for all memory or time."""
    secret, salt = passphrase.encode(), bytes.fromhex(params["salt"])
    if kdf == "pbkdf2" and params["prf"] == "hmac-sha256":
        rounds = int(params["c"])
        if rounds > _MOST_PBKDF2_ROUNDS:
            raise ConfigError("keystore", f"it asks for more than {_MOST_PBKDF2_ROUNDS} rounds")
        return hashlib.pbkdf2_hmac("sha256", secret, salt, rounds, 32)
    if kdf != "scrypt":
        raise ConfigError("keystore", f"the key derivation {kdf!r} is unknown")
    n, r, p = int(params["n"]), int(params["r"]), int(params["p"])
    if 128 * n * r > _MOST_SCRYPT_MEMORY or p > _MOST_SCRYPT_PASSES:
        raise ConfigError("keystore", "opening it would take more than 512 MiB or 16 passes")
    room = 2 * _MOST_SCRYPT_MEMORY
    return hashlib.scrypt(secret, salt=salt, n=n, r=r, p=p, maxmem=room, dklen=32)


def _aes_ctr(key: bytes, start: bytes, data: bytes) -> bytes:
    """AES-128 in counter mode, which seals and unseals alike."""
    machine = Cipher(AES(key), CTR(start)).encryptor()
    return machine.update(data) + machine.finalize()


def _address_of(key: coincurve.PublicKey) -> Address:
    return Address(keccak(key.format(compressed=False)[1:])[-ADDRESS_BYTES:])
