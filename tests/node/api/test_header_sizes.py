"""Headers and questions of any size and any bytes: nothing makes a 500, and nothing is done without bound."""

import asyncio
from pathlib import Path
from typing import Any

from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from network.units import Wei
from network.wire import codec
from network.wire.headers import (
    JOB_ID,
    PAYMENT,
    SEGMENT,
    decode_header,
    encode_header,
)
from node.api.listener import RawCodec
from tests.network.wire.protobuf_mutations import BYTES, field, mutated
from tests.network.wire.test_wire_fuzz import REQUEST
from tests.node.fakes import FakeEngine
from tests.node.nodes import GATEWAY_KEY, Answer, Buyer, running_node
from tests.node.payments.paid_nodes import PayingBuyer, credit_of, funded_chain, paid_node

ATTEMPT = "0123456789abcdef0123456789abcdef"


async def test_a_header_of_six_hundred_tickets_is_credited_whole(tmp_path: Path) -> None:
    """As many as go-livepeer's gateways make for one quote, 58 KB in one header."""
    chain = funded_chain()
    chain.gas_price = Wei(0)
    small: dict[str, Any] = {"payments": {"max_face_value": 40}}
    async with paid_node(tmp_path, chain, **small) as node, PayingBuyer(node) as buyer:
        quote = await buyer.quote()
        payment = buyer.payment(quote, 600)
        assert len(encode_header(codec.encode_payment(payment))) > 55_000
        answer = await buyer.pay(payment, {JOB_ID: ATTEMPT})
        assert answer.status == 200, answer.text
        assert credit_of(answer) == 600 * quote.value
        replayed = await buyer.pay(payment)
        assert replayed.status == 400
        assert "invalid ticket senderNonce: already seen" in replayed.text
        assert credit_of(replayed) == 0


def check(answer: Answer) -> None:
    if answer.status == 200:
        assert answer.json["images"]
        return
    assert answer.status in {400, 402, 403, 503}, (answer.status, answer.text)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.text.endswith("\n")


def test_no_bytes_in_a_header_make_a_500(tmp_path: Path) -> None:
    async def run() -> None:
        engine = FakeEngine()
        async with (
            paid_node(tmp_path, funded_chain(), engine) as node,
            PayingBuyer(node) as buyer,
        ):
            quote = await buyer.quote()
            headers = await buyer.headers()
            segment = decode_header(headers[SEGMENT])
            payments = [codec.encode_payment(buyer.payment(quote, n)) for n in (0, 1, 2)]
            cases: list[tuple[bytes, bytes]] = []

            @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
            @given(
                st.one_of(st.just(segment), mutated([segment])),
                st.one_of(st.sampled_from(payments), mutated(payments)),
            )
            def collect(first: bytes, second: bytes) -> None:
                cases.append((first, second))

            collect()
            paid = 0
            for first, second in cases:
                sent = {SEGMENT: encode_header(first), PAYMENT: encode_header(second)}
                answer = await buyer.ask({name: text[:200_000] for name, text in sent.items()})
                check(answer)
                paid += answer.status == 200
            assert len(engine.jobs) == paid, "nothing is done for whom is refused"
            assert (await buyer.get("/health")).json["status"] == "OK"

    asyncio.run(run())


def test_no_bytes_in_a_question_make_an_internal_error(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_node(tmp_path) as node, Buyer(node, GATEWAY_KEY) as buyer:
            cases: list[bytes] = []

            @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
            @given(mutated([REQUEST]))
            def collect(data: bytes) -> None:
                cases.append(data)

            collect()
            answered = 0
            for data in cases:
                answered += await _asked(buyer, data)
            assert 0 < answered < len(cases)
            assert (await buyer.terms()).capabilities.models

    asyncio.run(run())


_REFUSED = {Status.INVALID_ARGUMENT, Status.UNKNOWN}


async def _asked(buyer: Buyer, data: bytes) -> bool:
    """Whether GetOrchestrator was answered; AssertionError where it was refused in no good way."""
    reply: bytes | None = None
    refusal: GRPCError | None = None
    is_cut = False
    async with buyer.channel() as channel:
        channel._codec = RawCodec()
        try:
            async with channel.request(
                "/net.Orchestrator/GetOrchestrator", Cardinality.UNARY_UNARY, bytes, bytes
            ) as stream:
                await stream.send_message(data, end=True)
                reply = await stream.recv_message()
        except GRPCError as error:
            refusal = error
        except StreamTerminatedError:
            is_cut = True
    if is_cut:  # it sent more than a connection may
        assert len(data) > codec.MAX_REQUEST_BYTES
        return False
    if refusal is not None:
        assert refusal.message
        is_large = len(data) > codec.MAX_REQUEST_BYTES
        statuses = {Status.RESOURCE_EXHAUSTED} if is_large else _REFUSED
        assert refusal.status in statuses, refusal.message
        return False
    assert reply is not None
    assert codec.decode_orchestrator_info(reply).transcoder == buyer.node.url
    return True


async def test_a_question_of_megabytes_is_not_read(tmp_path: Path) -> None:
    """Announced or sent: no more of it is kept than a question has."""
    async with running_node(tmp_path) as node, Buyer(node, GATEWAY_KEY) as buyer:
        large = field(99, BYTES, bytes(codec.MAX_REQUEST_BYTES))
        assert not await _asked(buyer, REQUEST + large)
        assert (await buyer.terms()).capabilities.models
