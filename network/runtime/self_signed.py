"""Certificates that a program makes for itself, for peers who do not ask who issued them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from network.runtime.secret_file import write_secret


def write_self_signed(
    path: Path,
    common_name: str,
    now: float,
    *,
    backdated: timedelta,
    lifetime: timedelta,
    extensions: Sequence[x509.Extension[x509.ExtensionType]] = (),
) -> None:
    """Put an ECDSA P-256 certificate and its key into one PEM file that only the owner reads.

    It is valid from `backdated` before `now`, in unix seconds, because clocks of peers may be behind
    ours, until `lifetime` after it. A file that is there is replaced. Raises OSError.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    issued = datetime.fromtimestamp(now, UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(issued - backdated)
        .not_valid_after(issued + lifetime)
    )
    for extension in extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    certificate = builder.sign(key, hashes.SHA256())
    written_key = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    pem = written_key + certificate.public_bytes(serialization.Encoding.PEM)
    write_secret(path, pem, replace=True)
