"""An operator's TLS certificate, taken anew when its files are replaced.

    async with open_certificate(CertificateFiles(chain, key), ["http/1.1"], clock) as served:
        await loop.create_server(..., ssl=served.context)

ACME clients renew a certificate by putting other files, or other symbolic links, in place of the old
ones. Only what is in the files counts, so however that is done it is seen. Nothing is switched before
certificate and key are found to belong together, and connections that are open stay as they are.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final, Self
from weakref import WeakKeyDictionary

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from network.errors import ConfigError, LimnerError
from network.runtime.clock import Clock
from network.runtime.secret_file import is_open_to_others
from network.runtime.supervisor import supervise

#: How often the files are looked at.
CHECK_SECONDS: Final = 60.0
_MOST_BYTES: Final = 2**20
_DAY: Final = 86_400.0
_WARN_DAYS: Final = 14

_log = structlog.get_logger(__name__)


class CertificateError(LimnerError):
    """The files cannot be used; the message names the file and says why."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """PEM: the certificate with its whole chain, and its key without a passphrase."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Loaded:
    """What files held. Times in unix seconds; `names` are DNS names and addresses."""

    context: ssl.SSLContext
    digest: bytes
    valid_from: float
    valid_until: float
    names: tuple[str, ...]
    #: SHA-256 of the certificate in DER.
    fingerprint: bytes

    def covers(self, host: str) -> bool:
        """Whether a client that calls `host` will accept the certificate's names."""
        wildcard = f"*.{host.partition('.')[2]}"
        return any(name.lower() in {host.lower(), wildcard.lower()} for name in self.names)


@asynccontextmanager
async def open_certificate(
    files: CertificateFiles, protocols: Sequence[str], clock: Clock
) -> AsyncIterator["ServedCertificate"]:
    """Serve what the files hold, for the length of the block. Raises ConfigError for "tls"."""
    try:
        served = await ServedCertificate.open(files, protocols, clock)
    except CertificateError as error:
        raise ConfigError("tls", str(error)) from error
    async with supervise(clock) as supervisor:
        supervisor.start("certificate", served.watch)
        yield served


def load(files: CertificateFiles, protocols: Sequence[str]) -> Loaded:
    """Read and check the files; `protocols` are what ALPN offers. Raises CertificateError."""
    certificate, key = _read(files.certificate), _read(files.key)
    leaf = _leaf(files.certificate, certificate)
    if _public(_key(files.key, key)) != _public(leaf):
        raise CertificateError(f"{files.key} is not the key of {files.certificate}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(protocols))
    try:
        # With a passphrase, however wrong, nobody is asked for one on the terminal.
        context.load_cert_chain(files.certificate, files.key, password="")
    except OSError as error:  # ssl.SSLError is one
        raise CertificateError(f"cannot use {files.certificate}: {error}") from None
    digest = _digest(certificate, key)
    if _digest(_read(files.certificate), _read(files.key)) != digest:
        raise CertificateError(f"{files.certificate} changed while it was read")
    return Loaded(
        context,
        digest,
        leaf.not_valid_before_utc.timestamp(),
        leaf.not_valid_after_utc.timestamp(),
        _names(leaf),
        sha256(leaf.public_bytes(serialization.Encoding.DER)).digest(),
    )


class ServedCertificate:
    """The certificate of a listener. `context` is for as long as the listener lives."""

    def __init__(
        self, files: CertificateFiles, protocols: Sequence[str], clock: Clock, loaded: Loaded
    ) -> None:
        self.context = loaded.context
        # Asked at each handshake, whether the client named a host or not.
        self.context.sni_callback = self._choose
        self._files = files
        self._protocols = tuple(protocols)
        self._clock = clock
        self._loaded = loaded
        #: Of every context that a connection may still have.
        self._fingerprints = WeakKeyDictionary({loaded.context: loaded.fingerprint})
        self._problem = ""
        self._warned_at = float("-inf")

    @classmethod
    async def open(cls, files: CertificateFiles, protocols: Sequence[str], clock: Clock) -> Self:
        """Begin with what the files hold now. Raises CertificateError."""
        loaded = await asyncio.to_thread(load, files, protocols)
        if await asyncio.to_thread(is_open_to_others, files.key):
            _log.warning("others can read the key of the certificate", file=str(files.key))
        found = cls(files, protocols, clock, loaded)
        found._warn_of_its_end()
        return found

    @property
    def current(self) -> Loaded:
        """What new connections get."""
        return self._loaded

    def shown_on(self, connection: ssl.SSLObject) -> bytes:
        """SHA-256 of the certificate that this connection was shown, which may be an older one."""
        return self._fingerprints[connection.context]

    async def watch(self) -> None:
        """Look at the files again and again, for ever."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            await self.check()

    async def check(self) -> None:
        """Take what the files hold now, unless it is worse than what there is."""
        try:
            found = await asyncio.to_thread(self._look)
        except CertificateError as error:
            self._keep(str(error))
        else:
            self._problem = ""
            if found is not None:
                self._loaded = found
                self._fingerprints[found.context] = found.fingerprint
                self._warned_at = float("-inf")
                _log.info("took a new certificate", **self._facts())
        self._warn_of_its_end()

    def status(self) -> dict[str, object]:
        """Tell the operator; `problem` is why newer files are not used."""
        return {**self._facts(), "names": list(self._loaded.names), "problem": self._problem}

    def _look(self) -> Loaded | None:
        """What replaces the current one; None if nothing does."""
        content = _read(self._files.certificate), _read(self._files.key)
        if _digest(*content) == self._loaded.digest:
            return None
        found = load(self._files, self._protocols)
        now = self._clock.now()
        if not found.valid_from <= now <= found.valid_until:
            tense = "has expired" if now > found.valid_until else "is not valid yet"
            raise CertificateError(f"{self._files.certificate} {tense}")
        return found

    def _choose(
        self, handshake: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext
    ) -> None:
        handshake.context = self._loaded.context

    def _keep(self, problem: str) -> None:
        # Once for each reason: the files may stay as they are for days.
        if problem != self._problem:
            _log.warning("kept the old certificate", why=problem, **self._facts())
        self._problem = problem

    def _facts(self) -> dict[str, object]:
        ends = datetime.fromtimestamp(self._loaded.valid_until, UTC)
        left = self._loaded.valid_until - self._clock.now()
        return {
            "file": str(self._files.certificate),
            "expires": ends.isoformat(timespec="seconds"),
            "days_left": int(left // _DAY),
        }

    def _warn_of_its_end(self) -> None:
        now = self._clock.now()
        left = self._loaded.valid_until - now
        if left > _WARN_DAYS * _DAY or now - self._warned_at < _DAY:
            return
        self._warned_at = now
        if left < 0:
            _log.error("the certificate has expired", **self._facts())
        else:
            _log.warning("the certificate expires soon", **self._facts())


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise CertificateError(f"cannot read {path}: {error.strerror or error}") from None
    if len(content) > _MOST_BYTES:
        raise CertificateError(f"{path} is larger than {_MOST_BYTES} bytes")
    return content


def _leaf(path: Path, content: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(content)[0]
    except ValueError:
        raise CertificateError(f"{path} holds no certificate in PEM") from None


def _key(path: Path, content: bytes) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(content, password=None)
    except TypeError:
        raise CertificateError(
            f"{path} is encrypted, and nobody is there to ask for its passphrase"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(f"{path} holds no private key in PEM") from None


def _public(owner: x509.Certificate | PrivateKeyTypes) -> bytes:
    return owner.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    addresses = (str(one) for one in found.get_values_for_type(x509.IPAddress))
    return (*found.get_values_for_type(x509.DNSName), *addresses)


def _digest(certificate: bytes, key: bytes) -> bytes:
    return sha256(sha256(certificate).digest() + sha256(key).digest()).digest()
