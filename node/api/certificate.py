"""The node's own TLS certificate: self-signed, as gateways of this network expect.

Gateways verify no certificate (Livepeer wire, 1.3); TLS keeps prompts and images from those who
only listen. For clients that do verify there is `[tls]`; see `network.runtime.certificates`.
"""

import asyncio
import ipaddress
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from network.runtime.clock import Clock
from network.runtime.self_signed import write_self_signed

#: In this order: whoever can speak HTTP/1.1 gets it, and gRPC clients, who offer h2 only, h2.
ALPN_PROTOCOLS: Final = ("http/1.1", "h2")
_FILE: Final = "tls.pem"
_CHECK_SECONDS: Final = 12 * 3600.0
_LIFETIME: Final = timedelta(days=365)
_RENEW_BEFORE: Final = timedelta(days=30)
_BACKDATED: Final = timedelta(hours=1)


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
    names = x509.SubjectAlternativeName([_name(host) for host in hosts])
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    write_self_signed(
        path,
        "Limner node",
        now,
        backdated=_BACKDATED,
        lifetime=_LIFETIME,
        extensions=[
            x509.Extension(names.oid, critical=False, value=names),
            x509.Extension(constraints.oid, critical=True, value=constraints),
            x509.Extension(usage.oid, critical=False, value=usage),
        ],
    )


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
