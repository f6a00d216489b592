"""Signatures of webhooks, as Standard Webhooks has them (https://www.standardwebhooks.com). Pure."""

import hashlib
import hmac
from typing import Final

import pybase64

#: Bytes of the gateway's own secret, from which those of keys are made.
MASTER_BYTES: Final = 32
_PREFIX: Final = "whsec_"
_CONTEXT: Final = b"limner webhook of key "


def key_secret(master: bytes, key_id: str) -> bytes:
    """The 32 bytes that the webhooks of one API key are signed with."""
    return hmac.digest(master, _CONTEXT + key_id.encode(), hashlib.sha256)


def shown_secret(secret: bytes) -> str:
    """As receivers' libraries take it."""
    return _PREFIX + pybase64.b64encode_as_string(secret)


def signed_headers(secret: bytes, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """What goes with a webhook; `timestamp` in unix seconds."""
    content = f"{message_id}.{timestamp}.".encode() + body
    signature = pybase64.b64encode_as_string(hmac.digest(secret, content, hashlib.sha256))
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signature}",
    }
