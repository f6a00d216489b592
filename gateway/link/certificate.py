"""The certificate that nodes are shown: the gateway's own, or one made for links alone.

Nodes do not ask who issued it. The gateway signs its fingerprint with its account's key in the handshake,
which proves more than any authority does.
"""

import hashlib
import ssl
from datetime import timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from network.runtime.self_signed import write_self_signed

_FILE: Final = "link.pem"
_LIFETIME: Final = timedelta(days=3650)
_BACKDATED: Final = timedelta(days=1)


def server_context(certificate: Path, key: Path) -> tuple[ssl.SSLContext, bytes]:
    """A server's TLS and the SHA-256 of the certificate that it shows. Reads files.

    Raises OSError, ValueError for files that hold no certificate and its key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate, key)
    shown = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    return context, fingerprint(shown.public_bytes(serialization.Encoding.DER))


def fingerprint(certificate: bytes) -> bytes:
    """SHA-256 of a certificate in DER."""
    return hashlib.sha256(certificate).digest()


def own_certificate(directory: Path, now: float) -> Path:
    """A PEM file with a self-signed certificate and its key, made at first use; `now` in unix seconds.

    Raises OSError.
    """
    path = directory / _FILE
    if path.exists():
        return path
    write_self_signed(path, "Limner gateway links", now, backdated=_BACKDATED, lifetime=_LIFETIME)
    return path
