"""Who can reach a listener, and whether they are overheard."""

import ssl
from ipaddress import ip_address
from pathlib import Path


def server_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """HTTP/1.1 over TLS with a PEM chain and its key. Raises OSError; reads files."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate, key)
    return context


def is_local(listen_address: str) -> bool:
    """Whether "host:port" can be reached from this machine only."""
    host = listen_address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
