"""Orchestrators' addresses as Livepeer writes them: "https://host:8935", or less. Pure."""

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

#: Where an orchestrator listens that names no port.
DEFAULT_PORT: Final = 8935
_LONGEST: Final = 200
_HAS_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_IN_AN_ADDRESS: Final = re.compile(r"[A-Za-z0-9._~:/\[\]-]+")
_NAME: Final = re.compile(
    r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.?"
)
#: Resolvers take names that end like this for numbers, and "0x7f.1" for 127.0.0.1.
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")


def orchestrator_uri(text: str) -> str:
    """The one way in which an address is written here: lower case, with its port, without a last "/".

    Scheme https and port 8935 where it names none. Raises ValueError with the reason for what is no
    address of an orchestrator; the reason does not repeat `text`, which may be a stranger's.
    """
    if not text:
        raise ValueError("it is empty")
    if len(text) > _LONGEST:
        raise ValueError(f"it has more than {_LONGEST} characters")
    if "@" in text or "?" in text or "#" in text:
        raise ValueError("it is more than scheme, host, port and path")
    if not _IN_AN_ADDRESS.fullmatch(text):
        raise ValueError("it has characters that no address has")
    try:
        parts = urlsplit(text if _HAS_SCHEME.match(text) else f"https://{text}")
    except ValueError:
        raise ValueError("its host is no name and no IP address") from None
    if parts.scheme not in {"http", "https"}:
        raise ValueError("it is neither http nor https")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("its port is no port") from None
    if port == 0:
        raise ValueError("its port is no port")
    host = _host(parts.hostname or "")
    return f"{parts.scheme}://{host}:{port or DEFAULT_PORT}{parts.path.rstrip('/')}"


def _host(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return f"[{address}]" if address.version == 6 else str(address)  # noqa: PLR2004
    if not _NAME.fullmatch(host):
        raise ValueError("its host is no name and no IP address")
    if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        raise ValueError("its host is a number that is no IP address")
    return host
