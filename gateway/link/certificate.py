"""The certificate that nodes are shown: the gateway's own, or one made for links alone.

Nodes do not ask who issued it. The gateway signs its fingerprint with its account's key in the handshake,
which proves more than any authority does.
"""

import hashlib
import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_FILE: Final = "link.pem"
_LIFETIME: Final = timedelta(days=3650)
_BACKDATED: Final = timedelta(days=1)
_OWNER_ONLY: Final = 0o600


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
    key = ec.generate_private_key(ec.SECP256R1())
    issued = datetime.fromtimestamp(now, UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Limner gateway links")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(issued - _BACKDATED)
        .not_valid_after(issued + _LIFETIME)
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
    return path
