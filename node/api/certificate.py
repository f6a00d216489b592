"""The node's own TLS certificate: self-signed, as gateways of this network expect.

Gateways verify no certificate (Livepeer wire, 1.3); TLS keeps prompts and images from those who
only listen. For clients that do verify there is `[tls]`; see `network.runtime.certificates`.
"""

import asyncio
import ipaddress
import os
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from network.runtime.clock import Clock

#: In this order: whoever can speak HTTP/1.1 gets it, and gRPC clients, who offer h2 only, h2.
ALPN_PROTOCOLS: Final = ("http/1.1", "h2")
_FILE: Final = "tls.pem"
_CHECK_SECONDS: Final = 12 * 3600.0
_LIFETIME: Final = timedelta(days=365)
_RENEW_BEFORE: Final = timedelta(days=30)
#: Clocks of peers may be behind ours.
_BACKDATED: Final = timedelta(hours=1)
_OWNER_ONLY: Final = 0o600


async def server_context(directory: Path, hosts: Sequence[str], now: float) -> ssl.SSLContext:
    """Return a server's TLS context with the certificate of `directory`, made or renewed if need be.

    `hosts` are the names and IP addresses it is to be valid for; `now` in unix seconds.
    """
    return await asyncio.to_thread(_context, directory, tuple(hosts), now)


def _context(directory: Path, hosts: tuple[str, ...], now: float) -> ssl.SSLContext:
    path = directory / _FILE
    if not is_usable(path, hosts, now):
        write_certificate(path, hosts, now)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(path)
    context.set_alpn_protocols(list(ALPN_PROTOCOLS))
    return context


def is_usable(path: Path, hosts: Sequence[str], now: float) -> bool:
    """Tell whether a certificate is there, is valid for a month yet, and names all `hosts`."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    expires = certificate.not_valid_after_utc
    if expires - _RENEW_BEFORE < datetime.fromtimestamp(now, UTC):
        return False
    return all(_name(host) in names for host in hosts)


def write_certificate(path: Path, hosts: Sequence[str], now: float) -> None:
    """Make an ECDSA P-256 certificate and its key in one PEM file that only the owner reads."""
    key = ec.generate_private_key(ec.SECP256R1())
    issued = datetime.fromtimestamp(now, UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Limner node")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(issued - _BACKDATED)
        .not_valid_after(issued + _LIFETIME)
        .add_extension(
            x509.SubjectAlternativeName([_name(host) for host in hosts]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    draft = path.with_suffix(".new")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _OWNER_ONLY)
    with os.fdopen(handle, "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        file.write(certificate.public_bytes(serialization.Encoding.PEM))
    draft.replace(path)


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


async def keep_fresh(
    context: ssl.SSLContext, directory: Path, hosts: Sequence[str], clock: Clock
) -> None:
    """Renew the certificate of a running server; new connections get the new one. Never ends."""
    while True:
        await asyncio.sleep(_CHECK_SECONDS)
        await asyncio.to_thread(_renew, context, directory, tuple(hosts), clock.now())


def _renew(context: ssl.SSLContext, directory: Path, hosts: tuple[str, ...], now: float) -> None:
    path = directory / _FILE
    if not is_usable(path, hosts, now):
        write_certificate(path, hosts, now)
        context.load_cert_chain(path)
