"""Who can reach a listener, and whether they are overheard."""

import ssl
from ipaddress import ip_address
from pathlib import Path

from gateway.config import TlsSettings
from network.errors import ConfigError


def server_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """HTTP/1.1 over TLS with a PEM chain and its key. Raises OSError; reads files."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate, key)
    return context


def listener_tls(tls: TlsSettings) -> ssl.SSLContext | None:
    """What `[tls]` says, None for plain HTTP. Raises ConfigError; reads files."""
    if tls.certificate is None or tls.key is None:
        return None
    try:
        return server_tls(tls.certificate, tls.key)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            "tls", f"cannot use {tls.certificate} with {tls.key}: {error}"
        ) from error


def is_local(listen_address: str) -> bool:
    """Whether "host:port" can be reached from this machine only."""
    host = listen_address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
