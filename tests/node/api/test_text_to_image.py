import asyncio
import base64
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest

from network.capabilities import job_capabilities
from network.identity import KeySigner, checksum
from network.units import ModelId
from network.wire import image_parts
from network.wire.codec import Payment, encode_payment
from network.wire.headers import (
    FEE,
    JOB_ID,
    PAYMENT,
    PRICE,
    SEGMENT,
    WARNINGS,
    encode_header,
    segment_credentials,
)
from node.discovery.sessions import Sessions
from node.engine.work import FailureKind, JobFailedError, ModelFacts, ModelState
from tests.node.fakes import MODEL, FakeEngine
from tests.node.nodes import GATEWAY_KEY, Buyer, eventually, running_node
from tests.node.nodes import PRICE as NODE_PRICE

OTHER_KEY = KeySigner(b"\x33" * 32)
STRANGER_KEY = KeySigner(b"\x44" * 32)
ATTEMPT = "0123456789abcdef0123456789abcdef"


async def test_an_image_comes_with_a_receipt(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, Buyer(node, GATEWAY_KEY) as buyer:
        answer = await buyer.ask(num_images_per_prompt=3)
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("application/json")
        assert answer.headers[FEE] == str(64 * 64 * 3 * 5 // 2)
        assert answer.headers[PRICE] == "2.5"
        assert len(answer.headers[JOB_ID]) == 32
        images = answer.json["images"]
        assert [image["seed"] for image in images] == [7, 8, 9]
        assert [image["nsfw"] for image in images] == [False] * 3
        for image in images:
            kind, _, data = image["url"].partition(",")
            assert kind == "data:image/png;base64"
            assert base64.b64decode(data).startswith(b"\x89PNG\r\n\x1a\n")


async def test_a_gateway_that_takes_parts_gets_the_same_images_without_base64(
    tmp_path: Path,
) -> None:
    async with running_node(tmp_path) as node, Buyer(node, GATEWAY_KEY) as buyer:
        told = await buyer.ask(num_images_per_prompt=3)
        parts = await buyer.ask({"Accept": image_parts.ACCEPT}, num_images_per_prompt=3)
    assert parts.headers["Content-Type"] == image_parts.CONTENT_TYPE
    assert parts.headers[FEE] == told.headers[FEE]
    line, _, rest = parts.body.partition(b"\n")
    entries = orjson.loads(line)["images"]
    images = [base64.b64decode(one["url"].partition(",")[2]) for one in told.json["images"]]
    assert rest == b"".join(images)
    assert [one.pop("url") for one in entries] == [len(image) for image in images]
    for one in told.json["images"]:
        assert entries.pop(0) == {name: one[name] for name in ("seed", "nsfw", "safety")}


@pytest.mark.parametrize("accept", ["*/*", "application/json", "multipart/mixed, image/*", ""])
async def test_whoever_does_not_name_parts_gets_json(tmp_path: Path, accept: str) -> None:
    async with running_node(tmp_path) as node, Buyer(node, GATEWAY_KEY) as buyer:
        plain = await buyer.ask()
        answer = await buyer.ask({"Accept": accept})
    assert answer.headers["Content-Type"] == plain.headers["Content-Type"]
    assert answer.body == plain.body


async def test_warnings_come_in_a_header_and_leave_the_body_as_it_is(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        plain = await buyer.ask()
        assert WARNINGS not in plain.headers
        engine.warnings = ("the model reads 75 of 80", "no negative prompt")
        warned = await buyer.ask()
        assert warned.headers[WARNINGS] == "the model reads 75 of 80; no negative prompt"
        assert warned.json == plain.json


async def test_parts_of_a_prompt_for_a_model_never_loaded_go_to_the_engine(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.states[MODEL] = ModelState(MODEL, "cold")
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        assert (await buyer.ask(prompt="a | b | c")).status == 200
        assert engine.jobs[-1].prompts == ("a", "b", "c")


async def test_a_trailing_slash_makes_no_difference(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        body = b'{"prompt":"x","model_id":"limner/shapes","width":64,"height":64}'
        assert (await buyer.post("/text-to-image/", body, await buyer.headers())).status == 200


async def test_a_drawn_seed_leaves_room_for_every_image(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        answer = await buyer.ask(seed=None, num_images_per_prompt=4)
        first = answer.json["images"][0]["seed"]
        assert 0 <= first <= 2**32 - 4
        assert [image["seed"] for image in answer.json["images"]] == list(range(first, first + 4))


@pytest.mark.parametrize(
    ("model_says", "fields", "expected"),
    [
        (False, {}, False),
        (False, {"deterministic": True}, True),
        (True, {"deterministic": False}, True),
    ],
)
async def test_a_job_is_deterministic_where_the_request_or_the_model_says_so(
    tmp_path: Path, fields: dict[str, Any], *, model_says: bool, expected: bool
) -> None:
    engine = FakeEngine()
    models = [{"id": MODEL, "path": tmp_path / "model", "deterministic": model_says}]
    async with running_node(tmp_path, engine, models=models) as node, Buyer(node) as buyer:
        assert (await buyer.ask(**fields)).status == 200
        assert [job.deterministic for job in engine.jobs] == [expected]


async def test_an_unsigned_gateway_is_served_on_loopback_and_books_to_nobody(
    tmp_path: Path,
) -> None:
    """go-livepeer off-chain: empty signature, empty Livepeer-Payment."""
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        answer = await buyer.ask()
        assert answer.status == 200
        assert answer.headers[FEE] == "10240"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"width": 63}, "width"),
        ({"width": 65}, "multiple of 8"),
        ({"width": 8192, "height": 8192}, "less than or equal to"),
        ({"num_inference_steps": 10_000}, "num_inference_steps"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt"),
        ({"num_images_per_prompt": -3}, "num_images_per_prompt"),
        ({"seed": 2**63}, "seed"),
        ({"prompt": ""}, "Prompt must be provided."),
        ({"prompt": "   "}, "Prompt must be provided."),
        ({"prompt": "|"}, "Prompt must be provided."),
        ({"prompt": "a|b"}, "one prompt"),
        ({"prompt": "x" * 2001}, "prompt"),
        ({"loras": '{"a": 1}'}, "LoRa"),
        ({"guidance_scale": 1e9}, "guidance_scale"),
        ({"width": "wide"}, "width"),
        ({"model_id": ""}, "model_id"),
    ],
)
async def test_a_request_out_of_bounds_is_the_clients_fault_and_does_no_work(
    tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    engine = FakeEngine()
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        answer = await buyer.ask(**fields)
        assert answer.status == 400
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.text.startswith("text-to-image returned 400: ")
        assert words in answer.text
        assert answer.text.endswith("\n")
        assert not engine.jobs


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 5000, b'{"prompt":1}']
)
async def test_what_is_no_request_is_answered_400(tmp_path: Path, body: bytes) -> None:
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        answer = await buyer.post("/text-to-image", body, await buyer.headers())
        assert answer.status == 400
        assert "returned 400" in answer.text


async def test_a_body_too_large_is_answered_413(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        answer = await buyer.ask(negative_prompt="x" * 300_000)
        assert answer.status == 413
        assert "larger than 262144 bytes" in answer.text


async def test_the_size_must_suit_the_model(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.states[MODEL] = ModelState(MODEL, "ready", 1.0, facts=ModelFacts(size_multiple=64))
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        assert "multiple of 64" in (await buyer.ask(width=72)).text


@pytest.mark.parametrize(
    ("header", "value", "status", "text"),
    [
        (PAYMENT, "not base64!", 402, "base64 decode error"),
        (PAYMENT, encode_header(b"\xff\xff\xff"), 402, "protobuf unmarshal error"),
        (SEGMENT, "not base64!", 403, "ErrorSegEncoding"),
        (SEGMENT, encode_header(b"\xff\xff\xff"), 403, "protobuf unmarshal error"),
        (SEGMENT, "", 403, "missing auth token"),
    ],
)
async def test_bad_headers_are_refused_in_livepeers_words(
    tmp_path: Path, header: str, value: str, status: int, text: str
) -> None:
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        answer = await buyer.ask({header: value})
        assert (answer.status, text in answer.text) == (status, True), answer.text


async def test_a_token_of_another_node_is_refused(tmp_path: Path) -> None:
    async with (
        running_node(tmp_path / "one") as one,
        running_node(tmp_path / "other") as other,
        Buyer(one) as buyer,
        Buyer(other) as stranger,
    ):
        token = (await stranger.terms()).auth_token
        answer = await buyer.ask(token=token)
        assert (answer.status, answer.text) == (403, "invalid auth token\n")


async def test_an_expired_token_is_refused(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        secret = (tmp_path / "data" / "session-secret").read_bytes()
        token = Sessions(secret, bound=False).issue(None, 1_000_000.0)
        answer = await buyer.ask(token=token)
        assert (answer.status, answer.text) == (403, "expired auth token\n")


async def test_demands_the_node_does_not_meet_are_refused(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        token = (await buyer.terms()).auth_token
        for demands in (
            job_capabilities(MODEL, "0.9.1", min_version="99.0.0"),
            job_capabilities(ModelId("somebody/else"), "0.9.1"),
        ):
            credentials = segment_credentials(None, MODEL, demands, token)
            answer = await buyer.ask({SEGMENT: encode_header(credentials)})
            assert answer.status == 403
            assert answer.text.startswith("incompatible capabilities: ")


async def test_a_job_for_a_model_of_another_node_is_refused(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        answer = await buyer.ask(model_id="somebody/else")
        assert (answer.status, answer.text) == (503, "insufficient capacity: unknown_model\n")


async def test_a_named_sender_has_to_prove_it_even_where_anybody_is_served(
    tmp_path: Path,
) -> None:
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        payment = Payment(sender=GATEWAY_KEY.address, expected_price=NODE_PRICE)
        answer = await buyer.ask({PAYMENT: encode_header(encode_payment(payment))})
        assert (answer.status, answer.text) == (403, "ErrSegSig\n")


async def test_an_expected_price_below_ours_is_refused_with_ours(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with running_node(tmp_path, engine) as node, Buyer(node, GATEWAY_KEY) as buyer:
        answer = await buyer.ask(price=NODE_PRICE / 2)
        assert answer.status == 400
        assert "is below the 5/2" in answer.text
        assert "returned 400" not in answer.text
        assert not engine.jobs


async def test_a_signed_gateway_has_to_say_what_it_expects_to_pay(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, Buyer(node, GATEWAY_KEY) as buyer:
        answer = await buyer.ask(price=None)
        assert answer.status == 400
        assert answer.text.startswith("invalid expected price sent with payment err=")


async def test_a_generous_expected_price_is_still_charged_at_ours(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, Buyer(node, GATEWAY_KEY) as buyer:
        answer = await buyer.ask(price=NODE_PRICE * 3)
        assert answer.headers[FEE] == "10240"


async def test_an_allow_list_serves_its_gateways_only(tmp_path: Path) -> None:
    allowed = [checksum(key.address) for key in (GATEWAY_KEY, OTHER_KEY)]
    async with (
        running_node(tmp_path, allowed_gateways=allowed) as node,
        Buyer(node, GATEWAY_KEY) as buyer,
        Buyer(node, OTHER_KEY) as other,
        Buyer(node, STRANGER_KEY) as stranger,
        Buyer(node) as unsigned,
    ):
        token = (await buyer.terms()).auth_token
        assert (await buyer.ask()).status == 200
        answer = await stranger.ask(token=token)
        assert (answer.status, answer.text) == (403, "ErrSegSig\n")
        answer = await unsigned.ask(token=token)
        assert (answer.status, answer.text) == (403, "ErrSegSig\n")
        # A token overheard on the wire is made for one account.
        answer = await other.ask(token=token)
        assert (answer.status, answer.text) == (403, "invalid auth token\n")


@pytest.mark.parametrize(
    ("kind", "status", "text"),
    [
        (
            FailureKind.INVALID,
            400,
            "text-to-image returned 400: Error during model execution: odd",
        ),
        (FailureKind.OUT_OF_MEMORY, 503, "insufficient capacity: odd"),
        (FailureKind.WORKER_CRASHED, 500, "crashed"),
        (FailureKind.INTERNAL, 500, "Text-to-image pipeline error."),
    ],
)
async def test_a_failed_job_says_whose_fault_it_was(
    tmp_path: Path, kind: FailureKind, status: int, text: str
) -> None:
    engine = FakeEngine()
    engine.failures.append(JobFailedError(kind, "odd"))
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        answer = await buyer.ask()
        assert (answer.status, text in answer.text) == (status, True), answer.text
        assert (await buyer.ask()).status == 200


async def test_a_client_that_hangs_up_frees_its_slot_and_owes_nothing(tmp_path: Path) -> None:
    engine = FakeEngine(step_seconds=0.02)
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        asking = asyncio.ensure_future(buyer.ask({JOB_ID: ATTEMPT}, num_inference_steps=100))
        await _until_running(buyer)
        asking.cancel()
        await eventually(lambda: _is_over(buyer))
        assert len(engine.cancelled) == 1
        status = (await buyer.get("/status", admin=True)).json
        assert (status["models"][0]["free"], status["held"], status["earned_since_start"]) == (
            2,
            "0",
            "0",
        )


async def test_progress_is_told_to_whoever_knows_the_id(tmp_path: Path) -> None:
    engine = FakeEngine(step_seconds=0.02)
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        asking = asyncio.ensure_future(buyer.ask({JOB_ID: ATTEMPT}, num_inference_steps=20))
        progress = await _until_running(buyer)
        assert progress["total_steps"] == 20
        assert (await asking).status == 200
        assert (await buyer.get(f"/jobs/{ATTEMPT}")).status == 404


async def test_an_attempts_id_is_good_for_one_job(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        assert (await buyer.ask({JOB_ID: ATTEMPT})).status == 200
        answer = await buyer.ask({JOB_ID: ATTEMPT}, prompt="something else")
        assert answer.status == 409
        assert (await buyer.ask({JOB_ID: "short"})).status == 400


async def test_64_requests_at_two_places_are_all_answered(tmp_path: Path) -> None:
    engine = FakeEngine(step_seconds=0.005)
    queue = {"max_waiting": 8, "max_wait_seconds": 5}
    async with running_node(tmp_path, engine, queue=queue) as node, Buyer(node) as buyer:
        await buyer.headers()
        answers = await asyncio.gather(*(buyer.ask() for _ in range(64)))
        served = [answer for answer in answers if answer.status == 200]
        refused = [answer for answer in answers if answer.status != 200]
        assert len(served) >= 10
        assert engine.most_active == 2
        for answer in refused:
            assert answer.status == 503
            assert answer.text.startswith("insufficient capacity: ")
            assert int(answer.headers["Retry-After"]) > 0
        status = (await buyer.get("/status", admin=True)).json
        assert status["earned_since_start"] == str(10240 * len(served))
        assert status["held"] == "0"


async def _is_over(buyer: Buyer) -> bool:
    return (await buyer.get(f"/jobs/{ATTEMPT}")).status == 404


async def _until_running(buyer: Buyer) -> dict[str, object]:
    async with asyncio.timeout(5):
        while True:
            answer = await buyer.get(f"/jobs/{ATTEMPT}")
            if answer.status == 200 and answer.json["state"] == "running":
                progress: dict[str, object] = answer.json
                return progress
            await asyncio.sleep(0.01)


async def test_a_node_that_stops_sends_the_gateway_elsewhere_instead_of_hanging_up(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as node_ends_first:
        node = await node_ends_first.enter_async_context(
            running_node(tmp_path, FakeEngine(step_seconds=0.5))
        )
        async with Buyer(node) as buyer:
            asking = asyncio.ensure_future(buyer.ask({JOB_ID: ATTEMPT}, num_inference_steps=100))
            await _until_running(buyer)
            await node_ends_first.aclose()
            answer = await asking
    assert (answer.status, answer.text) == (503, "insufficient capacity: closing\n")
