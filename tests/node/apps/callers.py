"""Clients of a node's apps: they read the list, call, and pay what they are asked for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import orjson
import pybase64

from network.identity import checksum, sign_hashed
from network.payments.pricing import tickets_needed
from network.payments.signing import TicketSeries
from network.units import ModelId
from network.wire.codec import (
    OrchestratorInfo,
    Payment,
    SegmentCredentials,
    TicketSenderParams,
    decode_orchestrator_info,
    encode_payment,
    encode_segment_credentials,
)
from network.wire.headers import (
    NO_PROFILES,
    NO_SEGMENT_HASH,
    PAYER_ADDRESS,
    PAYMENT,
    SEGMENT,
    encode_header,
    flatten,
)
from network.wire.tickets import (
    decode_ticket_params,
    encode_creation_round,
    encode_ticket_params,
)
from node.apps.ours import route_of
from tests.node.fakes import MODEL
from tests.node.nodes import SMALL, Answer, Buyer
from tests.node.payments.paid_nodes import PayingBuyer

#: Of a model, in `GET /discovery`.
APP = f"text-to-image/{MODEL}"


def body_of(**fields: Any) -> bytes:
    return orjson.dumps({"prompt": "a small red circle", **SMALL, **fields})


@dataclass(frozen=True)
class Terms:
    """A 402, read as a payer reads it."""

    told: Mapping[str, Any]
    info: OrchestratorInfo

    @classmethod
    def of(cls, answer: Answer) -> "Terms":
        assert answer.status == 402, answer.text
        return cls.read(answer.json)

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> "Terms":
        data = pybase64.b64decode(told["payment_params"], validate=True)
        return cls(told, decode_orchestrator_info(data))

    @property
    def session_id(self) -> str:
        session_id: str = self.told["manifest_id"]
        return session_id

    @property
    def fee(self) -> Fraction:
        assert self.info.price is not None
        return self.info.price


async def listed(buyer: Buyer, query: str = "") -> list[dict[str, Any]]:
    """The runners of `GET /discovery`."""
    answer = await buyer.get(f"/discovery{query}")
    assert answer.status == 200
    (entry,) = answer.json
    assert entry["address"] == buyer.node.url
    found: list[dict[str, Any]] = entry["runners"]
    return found


def path_of(model_id: ModelId = MODEL, tail: str = "") -> str:
    return f"/apps/{route_of(model_id)}/app{tail}"


async def call(
    buyer: Buyer,
    headers: Mapping[str, str] | None = None,
    *,
    tail: str = "",
    body: bytes | None = None,
    **fields: Any,
) -> Answer:
    """One request; it names its payer where the buyer has an account."""
    sent = {"Content-Type": "application/json"}
    if buyer.signer is not None:
        sent[PAYER_ADDRESS] = checksum(buyer.signer.address)
    content = body_of(**fields) if body is None else body
    return await buyer.post(path_of(tail=tail), content, {**sent, **(headers or {})})


def payment_for(buyer: PayingBuyer, terms: Terms, count: int | None = None) -> Payment:
    """What a signer makes for these terms: as many tickets as the price takes."""
    assert terms.info.ticket_params is not None
    params = decode_ticket_params(terms.info.ticket_params)
    series = TicketSeries(params, buyer.payer.address)
    if count is None:
        count = tickets_needed(Fraction(0), terms.fee, params.expected_value)
    return Payment(
        sender=buyer.payer.address,
        expected_price=terms.fee,
        ticket_params=encode_ticket_params(params, with_creation=False),
        expiration_params=encode_creation_round(params.creation),
        tickets=tuple(
            TicketSenderParams(nonce, series.sign(buyer.payer, nonce))
            for nonce in range(1, count + 1)
        ),
    )


def headers_for(
    buyer: PayingBuyer, terms: Terms, payment: Payment | None = None, manifest: str | None = None
) -> dict[str, str]:
    """The two headers of a paid repeat."""
    name = (terms.session_id if manifest is None else manifest).encode()
    credentials = SegmentCredentials(
        manifest_id=name,
        hash=NO_SEGMENT_HASH,
        profiles=NO_PROFILES,
        signature=sign_hashed(buyer.payer, flatten(name, 0, NO_SEGMENT_HASH)),
        capabilities=None,
        auth_token=terms.info.auth_token,
    )
    payment = payment_for(buyer, terms) if payment is None else payment
    return {
        PAYMENT: encode_header(encode_payment(payment)),
        SEGMENT: encode_header(encode_segment_credentials(credentials)),
    }


async def bought(buyer: PayingBuyer, **fields: Any) -> tuple[Terms, Answer]:
    """Ask, pay, and ask again."""
    terms = Terms.of(await call(buyer, **fields))
    return terms, await call(buyer, headers_for(buyer, terms), **fields)


def problem(answer: Answer) -> tuple[int, str]:
    """Status and reason; the envelope has it in both places."""
    told = answer.json
    assert answer.headers["Content-Type"].startswith("application/json")
    message: str = told["error"]["message"]
    if answer.status != 422:
        assert told["detail"]["msg"] == message
    assert re.fullmatch("[a-z0-9_]+", told["error"]["code"])
    return answer.status, message


def without_tickets(payment: Payment) -> Payment:
    return replace(payment, ticket_params=None, expiration_params=None, tickets=())
