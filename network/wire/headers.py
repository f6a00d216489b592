"""Header names, their base64, and the signed credentials of a job.

The signature of a text-to-image job covers the account and the model only; it is constant
and can be replayed. Freshness comes from the auth token (Livepeer wire, section 3.2).
"""

import binascii
from typing import Final

import pybase64

from network.capabilities import TEXT_TO_IMAGE, Capabilities
from network.errors import WireError
from network.identity import Signer, keccak, sign_hashed, verify_hashed
from network.units import Address, ModelId
from network.wire.codec import AuthToken, SegmentCredentials, encode_segment_credentials

SEGMENT: Final = "Livepeer-Segment"
PAYMENT: Final = "Livepeer-Payment"
#: Who is going to pay for a call of an app, as 0x and 40 hex digits; not proven.
PAYER_ADDRESS: Final = "Livepeer-Payer-Address"
#: Value of `Authorization` between gateway and orchestrator: a version, not a secret.
PROTOCOL_MARK: Final = "Livepeer-AI-Worker-1.0"
JOB_ID: Final = "Limner-Job-Id"
FEE: Final = "Limner-Fee"
PRICE: Final = "Limner-Price"
#: What the payment of this very attempt brought, in wei as a fraction; on refusals too.
CREDIT: Final = "Limner-Credit"
#: What of a request had no effect: ASCII sentences that quote no prompt, joined by "; ".
WARNINGS: Final = "Limner-Warnings"
#: Denoise steps and guidance scale that an image was made with, which a profile may have set.
STEPS: Final = "Limner-Steps"
GUIDANCE: Final = "Limner-Guidance"
#: Of the one image of an answer that is a bare PNG.
SEED: Final = "Limner-Seed"
SAFETY: Final = "Limner-Safety"
REQUEST_ID: Final = "X-Request-Id"
#: A node of ours, asked with 404 for a receipt that it does not have; others do not know the call.
NO_RECEIPT: Final = "no attempt of this id was paid for or done here"

#: Characters of one header.
MAX_HEADER: Final = 128 * 1024

#: An AI job has no segment: the hash is that of nothing and the profile is a constant.
NO_SEGMENT_HASH: Final = keccak(b"")
NO_PROFILES: Final = b"invalid"
_PROFILE_DIGITS: Final = 4


def encode_header(data: bytes) -> str:
    """Standard base64 with padding."""
    return pybase64.b64encode_as_string(data)


def decode_header(text: str) -> bytes:
    """Bytes of a base64 header; raises WireError for anything but strict standard base64."""
    if len(text) > MAX_HEADER:
        raise WireError(f"header of {len(text)} characters; at most {MAX_HEADER} are read")
    try:
        return pybase64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise WireError("base64 decode error: not standard base64") from None


def manifest_id(model_id: ModelId) -> bytes:
    """What names a text-to-image session on `model_id`."""
    return f"{TEXT_TO_IMAGE}_{model_id}".encode()


def profile_ids(*names: str) -> bytes:
    """The profiles' part of `flatten` for a video segment; AI jobs have none."""
    return b"".join(keccak(name.encode())[:_PROFILE_DIGITS].hex().encode() for name in names)


def flatten(manifest: bytes, seq: int, segment_hash: bytes, profiles: bytes = b"") -> bytes:
    """The bytes that a job's signature covers."""
    return manifest + seq.to_bytes(32, "big") + segment_hash.rjust(32, b"\0")[-32:] + profiles


def segment_credentials(
    signer: Signer | None,
    model_id: ModelId,
    capabilities: Capabilities,
    auth_token: AuthToken | None,
) -> bytes:
    """The encoded SegData of a text-to-image job; unsigned without a signer.

    Goes through `encode_header` into the header `SEGMENT`.
    """
    manifest = manifest_id(model_id)
    signature = b""
    if signer is not None:
        signature = sign_hashed(signer, flatten(manifest, 0, NO_SEGMENT_HASH))
    return encode_segment_credentials(
        SegmentCredentials(
            manifest_id=manifest,
            hash=NO_SEGMENT_HASH,
            profiles=NO_PROFILES,
            signature=signature,
            capabilities=capabilities,
            auth_token=auth_token,
        )
    )


def verify_segment(credentials: SegmentCredentials, sender: Address) -> None:
    """Raise SignatureError unless `sender` signed these credentials of an AI job."""
    covered = flatten(credentials.manifest_id, credentials.seq, credentials.hash)
    verify_hashed(sender, covered, credentials.signature)
