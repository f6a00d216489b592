"""TLS as a stranger meets it: the handshake, and what the certificate is good for."""

import asyncio
import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509

from network.findings import Finding, fail, ok, warn

_TLS: Final = "TLS"
_CERTIFICATE: Final = "certificate"
_SOON: Final = timedelta(days=14)
_H2: Final = "h2"
#: What OpenSSL says of a chain that ends in a certificate nobody else vouches for.
_SELF_SIGNED: Final = frozenset({18, 19})


@dataclass(frozen=True, slots=True)
class Handshake:
    """What a TLS handshake showed; `objection` is why clients that verify would not go on, else ""."""

    version: str
    #: Agreed on by a client that speaks HTTP/2 only, as gRPC clients do; "" is none.
    protocol: str
    certificate: bytes
    objection: str
    is_self_signed: bool


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What a certificate says of itself."""

    names: tuple[str, ...]
    begins: datetime
    expires: datetime


async def shake_hands(host: str, port: int) -> Handshake:
    """Shake hands as gRPC clients do, and once more as clients do that verify. Raises OSError."""
    lax = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    lax.check_hostname = False
    lax.verify_mode = ssl.CERT_NONE
    lax.set_alpn_protocols([_H2])
    _, writer = await asyncio.open_connection(host, port, ssl=lax, server_hostname=host)
    try:
        session = writer.get_extra_info("ssl_object")
        version = str(session.version())
        protocol = str(session.selected_alpn_protocol() or "")
        certificate = session.getpeercert(binary_form=True) or b""
    finally:
        writer.transport.abort()
    objection, is_self_signed = await _objection(host, port)
    return Handshake(version, protocol, certificate, objection, is_self_signed)


async def _objection(host: str, port: int) -> tuple[str, bool]:
    strict = await asyncio.to_thread(ssl.create_default_context)
    try:
        _, writer = await asyncio.open_connection(host, port, ssl=strict, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        return error.verify_message or str(error), error.verify_code in _SELF_SIGNED
    writer.transport.abort()
    return "", False


def facts_of(certificate: bytes) -> CertificateFacts:
    """Read a certificate in DER. Raises ValueError."""
    parsed = x509.load_der_x509_certificate(certificate)
    try:
        extension = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names: tuple[str, ...] = ()
    else:
        addresses = extension.get_values_for_type(x509.IPAddress)
        names = (*extension.get_values_for_type(x509.DNSName), *map(str, addresses))
    return CertificateFacts(names, parsed.not_valid_before_utc, parsed.not_valid_after_utc)


def judge_handshake(shown: Handshake) -> Finding:
    """Say whether gRPC clients would go on after this handshake."""
    if shown.protocol != _H2:
        return fail(
            _TLS,
            f"{shown.version}, but no ALPN h2: gRPC clients hang up",
            "let the proxy before the node offer h2 and http/1.1, or pass TLS through to the node",
        )
    return ok(_TLS, f"{shown.version}, ALPN h2")


def judge_certificate(shown: Handshake, host: str, now: float, *, is_public: bool) -> Finding:
    """Say for whom the certificate is good. `now` in unix seconds."""
    try:
        facts = facts_of(shown.certificate)
    except ValueError:
        return fail(_CERTIFICATE, "there is none that can be read", "renew it")
    moment = datetime.fromtimestamp(now, UTC)
    until = f"{facts.expires:%Y-%m-%d}"
    if moment >= facts.expires:
        return fail(_CERTIFICATE, f"expired on {until}", "renew it")
    if moment < facts.begins:
        return fail(
            _CERTIFICATE,
            f"is valid from {facts.begins:%Y-%m-%d %H:%M} UTC only",
            "see that this machine's clock is right, or renew the certificate",
        )
    if facts.expires - moment < _SOON:
        return warn(_CERTIFICATE, f"expires on {until}", "renew it")
    if not shown.objection:
        return ok(_CERTIFICATE, f"verified by the usual authorities, until {until}")
    return _unverified(shown, facts, host, until, is_public=is_public)


def _unverified(
    shown: Handshake, facts: CertificateFacts, host: str, until: str, *, is_public: bool
) -> Finding:
    named = "self-signed" if shown.is_self_signed else f"not verified ({shown.objection})"
    if not _covers(facts.names, host):
        return warn(
            _CERTIFICATE,
            f"{named}, and made for {', '.join(facts.names[:4]) or 'nobody'} rather than {host}",
            f"have it name {host}",
        )
    detail = f"{named}, names {host}, until {until}"
    if not is_public:
        return ok(_CERTIFICATE, detail)
    return warn(
        _CERTIFICATE,
        f"{detail}; Livepeer's gateways take it, but GET /discovery by signers and the SDK verifies",
        "to be found that way, put a certificate of a public authority for it before the node",
    )


def _covers(names: tuple[str, ...], host: str) -> bool:
    try:
        return str(ipaddress.ip_address(host)) in names
    except ValueError:
        pass
    low = host.lower().rstrip(".")
    parent = low.partition(".")[2]
    return any(name.lower() == low or (parent and name.lower() == f"*.{parent}") for name in names)
