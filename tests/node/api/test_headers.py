"""A job's headers in every wrong form there is: which status, which words, and that nothing was done for them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from network.capabilities import job_capabilities
from network.identity import KeySigner, sign_hashed
from network.units import ModelId
from network.wire import codec
from network.wire.headers import (
    JOB_ID,
    MAX_HEADER,
    PAYMENT,
    SEGMENT,
    decode_header,
    encode_header,
    flatten,
)
from network.wire.session import SegmentCredentials
from tests.network.wire.protobuf_mutations import (
    BYTES,
    FIXED64,
    GROUP_START,
    VARINT,
    field,
    varint,
)
from tests.node.fakes import MODEL, FakeEngine
from tests.node.nodes import GATEWAY_KEY, PRICE, Buyer, running_node
from tests.node.payments.paid_nodes import PayingBuyer, funded_chain, paid_node, refused

OTHER = KeySigner(b"\x44" * 32)
ATTEMPT = "0123456789abcdef0123456789abcdef"
NOT_BASE64 = "base64 decode error: not standard base64"
NO_MESSAGE = "protobuf unmarshal error: not a message of this kind"
OWN = job_capabilities(MODEL, "0.1.0")


def signed(credentials: SegmentCredentials, signer: KeySigner = GATEWAY_KEY) -> SegmentCredentials:
    covered = flatten(credentials.manifest_id, credentials.seq, credentials.hash)
    return replace(credentials, signature=sign_hashed(signer, covered))


def _twin(signature: bytes) -> bytes:
    """The other signature that fits: with the high s."""
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    s = order - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])


@dataclass(frozen=True)
class Bad:
    """A header made from a good one, and what is said to it."""

    #: From the good header's bytes to the text of the bad one.
    make: Callable[[bytes], str]
    words: str


def as_bytes(change: Callable[[bytes], bytes], words: str) -> Bad:
    return Bad(lambda good: encode_header(change(good)), words)


def credentials(change: Callable[[SegmentCredentials], SegmentCredentials], words: str) -> Bad:
    """What is changed is not signed anew."""

    def make(good: bytes) -> str:
        changed = change(codec.decode_segment_credentials(good))
        return encode_header(codec.encode_segment_credentials(changed))

    return Bad(make, words)


def _token(**changes: Any) -> Callable[[SegmentCredentials], SegmentCredentials]:
    def change(good: SegmentCredentials) -> SegmentCredentials:
        assert good.auth_token is not None
        return replace(good, auth_token=replace(good.auth_token, **changes))

    return change


def _asking(**changes: Any) -> Callable[[SegmentCredentials], SegmentCredentials]:
    def change(good: SegmentCredentials) -> SegmentCredentials:
        assert good.capabilities is not None
        return replace(good, capabilities=replace(good.capabilities, **changes))

    return change


_OTHER_MODEL = job_capabilities(ModelId("another/model"), "0.1.0").models

BAD_SEGMENTS: dict[str, Bad] = {
    "no base64": Bad(lambda _: "%%%%", "ErrorSegEncoding"),
    "base64 of URLs": Bad(
        lambda good: encode_header(good).replace("/", "_").replace("+", "-") + "-_-_",
        "ErrorSegEncoding",
    ),
    "no padding": Bad(lambda good: encode_header(good)[:-1], "ErrorSegEncoding"),
    "spaces inside": Bad(
        lambda good: encode_header(good)[:8] + " " + encode_header(good)[8:], "ErrorSegEncoding"
    ),
    "too long": Bad(lambda _: "A" * (MAX_HEADER + 4), "ErrorSegEncoding"),
    "cut off": as_bytes(lambda good: good[:-1], NO_MESSAGE),
    "a group without an end": as_bytes(lambda good: good + field(9, GROUP_START), NO_MESSAGE),
    "text that is none": as_bytes(
        lambda good: good + field(7, BYTES, field(4, BYTES, b"\xff")), NO_MESSAGE
    ),
    "nobody signed": credentials(lambda good: replace(good, signature=b""), "ErrSegSig"),
    "another signed": credentials(lambda good: signed(good, OTHER), "ErrSegSig"),
    "signed for another model": credentials(
        lambda good: replace(good, manifest_id=b"27_another"), "ErrSegSig"
    ),
    "the signature's twin": credentials(
        lambda good: replace(good, signature=_twin(good.signature)), "ErrSegSig"
    ),
    "a short signature": credentials(
        lambda good: replace(good, signature=good.signature[:64]), "ErrSegSig"
    ),
    "another hash": credentials(lambda good: replace(good, hash=b"x" * 32), "ErrSegSig"),
    "a sequence below 0": as_bytes(
        lambda good: good + field(2, VARINT, varint(2**64 - 1)), "negative sequence number"
    ),
    "a duration below 0": as_bytes(
        lambda good: good + field(6, VARINT, varint(2**64 - 1)), "invalid duration"
    ),
    "above five minutes": credentials(
        lambda good: replace(good, duration=5 * 60 * 1000 + 1), "invalid duration"
    ),
    "a capability that nobody has": credentials(
        _asking(bits=OWN.bits | {63}), "incompatible capabilities: missing capabilities: 63"
    ),
    "a model that is not here": credentials(
        _asking(models=_OTHER_MODEL),
        "incompatible capabilities: model another/model is not offered",
    ),
    "too new a version": credentials(
        _asking(min_version="999.0.0"),
        "incompatible capabilities: version 0.1.0 is older than 999.0.0",
    ),
    "too many words": as_bytes(
        lambda good: good + field(7, BYTES, field(1, BYTES, b"\x01" * 17)),
        "18 entries of bitstring; at most 16 are read",
    ),
    "no token": credentials(lambda good: replace(good, auth_token=None), "missing auth token"),
    "an empty token": credentials(_token(token=b""), "missing auth token"),
    "a token of another secret": credentials(_token(token=b"x" * 32), "invalid auth token"),
    "a token for longer": credentials(_token(expiration=2**40), "invalid auth token"),
    "a token of long ago": credentials(_token(expiration=-1), "invalid auth token"),
    "a token of another session": credentials(_token(session_id="00000000"), "invalid auth token"),
}

BAD_PAYMENTS: dict[str, tuple[Bad, int]] = {
    "no base64": (Bad(lambda _: "%%%%", NOT_BASE64), 402),
    "a newline's leftovers": (Bad(lambda good: encode_header(good) + "=", NOT_BASE64), 402),
    "base64 of URLs": (Bad(lambda _: "-_-_", NOT_BASE64), 402),
    "too long": (
        Bad(
            lambda _: "A" * (MAX_HEADER + 4),
            f"header of {MAX_HEADER + 4} characters; at most {MAX_HEADER} are read",
        ),
        402,
    ),
    "cut off": (as_bytes(lambda good: good[:-1], NO_MESSAGE), 402),
    "a group without an end": (
        as_bytes(lambda good: good + field(9, GROUP_START), NO_MESSAGE),
        402,
    ),
    "a field of no kind": (as_bytes(lambda good: good + b"\x0f", NO_MESSAGE), 402),
    "half a double": (as_bytes(lambda good: good + field(9, FIXED64, b"half"), NO_MESSAGE), 402),
    "a short sender": (
        as_bytes(
            lambda good: good + field(2, BYTES, b"x" * 19), "address of 19 bytes instead of 20"
        ),
        402,
    ),
    "no pixels": (
        as_bytes(
            lambda good: good + field(5, BYTES, field(2, VARINT, varint(0))),
            "invalid expected price sent with payment err=pixels per unit is 0",
        ),
        402,
    ),
    "a price below 0": (
        as_bytes(
            lambda good: good + field(5, BYTES, field(1, VARINT, varint(2**64 - 5))),
            "invalid expected price sent with payment err=negative price",
        ),
        402,
    ),
    "too many tickets": (
        as_bytes(
            lambda good: good + field(4, BYTES) * 1025,
            "1025 entries of ticket_sender_params; at most 1024 are read",
        ),
        402,
    ),
    "another sender": (
        as_bytes(lambda good: good + field(2, BYTES, OTHER.address), "ErrSegSig"),
        403,
    ),
    "nobody": (as_bytes(lambda _: b"", "ErrSegSig"), 403),
}


async def test_every_bad_segment_is_refused_before_any_work(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with running_node(tmp_path, engine) as node, Buyer(node, GATEWAY_KEY) as buyer:
        headers = await buyer.headers()
        good = decode_header(headers[SEGMENT])
        for name, bad in BAD_SEGMENTS.items():
            answer = await buyer.ask({SEGMENT: bad.make(good)})
            assert refused(answer) == (403, bad.words), name
            assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert refused(await buyer.ask({SEGMENT: ""})) == (403, "ErrSegSig")
        assert not engine.jobs
        assert (await buyer.ask({SEGMENT: headers[SEGMENT]})).status == 200


async def test_every_bad_payment_is_refused_before_any_work(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with running_node(tmp_path, engine) as node, Buyer(node, GATEWAY_KEY) as buyer:
        headers = await buyer.headers()
        good = decode_header(headers[PAYMENT])
        for name, (bad, status) in BAD_PAYMENTS.items():
            answer = await buyer.ask({PAYMENT: bad.make(good)})
            assert refused(answer) == (status, bad.words), name
            assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert not engine.jobs
        assert (await buyer.ask({PAYMENT: headers[PAYMENT]})).status == 200


_PRICE = field(
    5,
    BYTES,
    field(1, VARINT, varint(PRICE.numerator)) + field(2, VARINT, varint(PRICE.denominator)),
)


TICKETS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no parameters": (
        lambda _: (
            field(2, BYTES, GATEWAY_KEY.address)
            + field(4, BYTES, field(1, VARINT, varint(1)))
            + _PRICE
        ),
        "invalid payment: tickets without their parameters",
    ),
    "a short recipient": (
        lambda good: good + field(1, BYTES, field(1, BYTES, b"x" * 19)),
        "invalid ticket params: recipient of 19 bytes instead of 20",
    ),
    "a face value of 33 bytes": (
        lambda good: good + field(1, BYTES, field(2, BYTES, b"x" * 33)),
        "invalid ticket params: face_value of 33 bytes; at most 32 fit",
    ),
    "a short hash": (
        lambda good: good + field(1, BYTES, field(4, BYTES, b"x" * 31)),
        "invalid ticket params: recipient_rand_hash of 31 bytes instead of 32",
    ),
    "a long seed": (
        lambda good: good + field(1, BYTES, field(5, BYTES, b"x" * 33)),
        "invalid ticket params: seed of 33 bytes; at most 32 fit",
    ),
    "a block beyond all": (
        lambda good: good + field(1, BYTES, field(6, BYTES, b"\xff" * 8)),
        f"invalid ticket params: expiration_block is above {2**63 - 1}",
    ),
    "parameters of a kilobyte": (
        lambda good: good + field(1, BYTES, field(99, BYTES, bytes(1024))),
        "invalid ticket params: ticket params of 1",
    ),
    "a round below 0": (
        lambda good: good + field(3, BYTES, field(1, VARINT, varint(2**64 - 1))),
        "invalid ticket params: negative creation round",
    ),
    "a short block hash": (
        lambda good: good + field(3, BYTES, field(2, BYTES, b"x" * 31)),
        "invalid ticket params: creation_round_block_hash of 31 bytes instead of 32",
    ),
    "a ticket that nobody signed": (
        lambda good: good + field(4, BYTES, field(1, VARINT, varint(9))),
        "invalid ticket signature",
    ),
    "a ticket for nobody's number": (
        lambda good: good + field(1, BYTES, field(5, BYTES, b"another seed")),
        "invalid recipientRand for ticket recipientRandHash",
    ),
}


async def test_every_bad_ticket_is_refused_before_any_work(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with (
        paid_node(tmp_path, funded_chain(), engine) as node,
        PayingBuyer(node) as buyer,
    ):
        quote = await buyer.quote()
        for name, (change, words) in TICKETS.items():
            good = codec.encode_payment(buyer.payment(quote, 0))
            answer = await buyer.ask({PAYMENT: encode_header(change(good))})
            if not codec.decode_payment(change(good)).tickets:
                # A payment without tickets leaves its parameters unread.
                good = codec.encode_payment(buyer.payment(quote))
                answer = await buyer.ask({PAYMENT: encode_header(change(good))})
            assert answer.status == 400, name
            assert answer.text.startswith(words), name
        assert not engine.jobs
        assert (await buyer.pay(buyer.payment(quote))).status == 200


BAD_JOB_IDS = (
    "short",
    "a" * 15,
    "a" * 65,
    "a" * 1000,
    "a" * 15 + "é",
    "a" * 15 + "'",
    "a" * 8 + " " + "a" * 8,
    "a" * 16 + ".",
    "../../../../etc/passwd",
    "%00" * 8,
    "<script>alert(1)</script>",
    "{" * 16,
)


async def test_every_bad_job_id_is_refused(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with running_node(tmp_path, engine) as node, Buyer(node, GATEWAY_KEY) as buyer:
        words = f"{JOB_ID} must be 16 to 64 letters, digits, '-' or '_'"
        for bad in BAD_JOB_IDS:
            assert refused(await buyer.ask({JOB_ID: bad})) == (400, words), bad
        assert not engine.jobs
        assert (await buyer.ask({JOB_ID: ATTEMPT})).status == 200


async def test_the_protocol_mark_is_no_credential(tmp_path: Path) -> None:
    """It asks for one form of images, of which ours is good for all gateways (wire, 3.6)."""
    async with running_node(tmp_path) as node, Buyer(node, GATEWAY_KEY) as buyer:
        for mark in ("", "Livepeer-AI-Worker-2.0", "Bearer x", "A" * 8000):
            answer = await buyer.ask({"Authorization": mark})
            assert answer.json["images"][0]["url"].startswith("data:image/png;base64,")


async def test_refusals_come_in_the_wires_order(tmp_path: Path) -> None:
    """Body, payment header, credentials, capacity, tickets (wire, 3.3): each before all that follow."""
    async with paid_node(tmp_path, funded_chain()) as node, PayingBuyer(node) as buyer:
        quote = await buyer.quote()
        unsigned = field(4, BYTES, field(1, VARINT, varint(9)))
        faults: dict[str, dict[str, Any]] = {
            "body": {"width": "x"},
            "payment": {"headers": {PAYMENT: "%%%%"}},
            "credentials": {"headers": {SEGMENT: "%%%%"}},
            "capacity": {"model_id": "another/model"},
            "tickets": {
                "headers": {
                    PAYMENT: encode_header(
                        codec.encode_payment(buyer.payment(quote, 0)) + unsigned
                    )
                }
            },
        }
        expected = [400, 402, 403, 503, 400]
        told = []
        for first in range(len(faults)):
            wrong = list(faults.values())[first:]
            fields: dict[str, Any] = {}
            headers: dict[str, str] = {}
            for one in reversed(wrong):
                headers |= one.get("headers", {})
                fields |= {name: value for name, value in one.items() if name != "headers"}
            told.append(await buyer.ask(headers, **fields))
        assert [answer.status for answer in told] == expected
        assert told[-1].text == "invalid ticket signature\n"
        assert told[3].text.startswith("insufficient capacity")
