"""Who can reach a listener, and whether they are overheard."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Final

from gateway.config import TlsSettings
from network.errors import ConfigError
from network.runtime.certificates import (
    CertificateError,
    CertificateFiles,
    ServedCertificate,
    load,
    open_certificate,
)
from network.runtime.clock import Clock

_PROTOCOLS: Final = ("http/1.1",)


@asynccontextmanager
async def open_tls(tls: TlsSettings, clock: Clock) -> AsyncIterator[ServedCertificate | None]:
    """What `[tls]` says, for the length of the block; None for plain HTTP. Raises ConfigError."""
    if tls.certificate is None or tls.key is None:
        yield None
        return
    files = CertificateFiles(tls.certificate, tls.key)
    async with open_certificate(files, _PROTOCOLS, clock) as served:
        yield served


def check_tls(tls: TlsSettings) -> None:
    """Raise ConfigError where `[tls]` could not be served; reads files."""
    if tls.certificate is None or tls.key is None:
        return
    try:
        load(CertificateFiles(tls.certificate, tls.key), _PROTOCOLS)
    except CertificateError as error:
        raise ConfigError("tls", str(error)) from error


def is_local(listen_address: str) -> bool:
    """Whether "host:port" can be reached from this machine only."""
    host = listen_address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
