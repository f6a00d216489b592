"""Apps that anybody may call: the list, the call, and what is refused in which words."""

import base64
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from network.capabilities import job_capabilities
from network.identity import KeySigner
from network.units import ModelId
from network.wire.codec import Payment
from network.wire.headers import FEE, JOB_ID, SAFETY, SEED
from node.apps.ours import route_of
from node.engine.work import FailureKind, JobFailedError, ModelState
from tests.node.apps.callers import APP, Terms, call, headers_for, listed, path_of, problem
from tests.node.fakes import MODEL, FakeEngine
from tests.node.nodes import GATEWAY_KEY, Buyer, running_node
from tests.node.payments.paid_nodes import PayingBuyer

ATTEMPT = "0123456789abcdef0123456789abcdef"
BUSY = "no capacity available for runner: "
OTHER = ModelId("other/model")


async def test_a_model_is_listed_as_an_app_without_a_price_where_nobody_pays_by_ticket(
    tmp_path: Path,
) -> None:
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        (runner,) = await listed(buyer)
        assert runner["app"] == APP
        assert runner["url"] == node.url + path_of()
        assert runner["mode"] == "single-shot"
        assert runner["version"]
        used = (runner["capacity"], runner["capacity_used"], runner["capacity_available"])
        assert used == (2, 0, 2)
        assert "price_info" not in runner


async def test_the_list_can_be_narrowed_by_app_and_gpu(tmp_path: Path) -> None:
    engine = FakeEngine(MODEL, OTHER)
    models = [{"id": model, "path": tmp_path / "model"} for model in (MODEL, OTHER)]
    async with running_node(tmp_path, engine, models=models) as node, Buyer(node) as buyer:
        apps = [runner["app"] for runner in await listed(buyer)]
        assert apps == [APP, f"text-to-image/{OTHER}"]
        for query, found in (
            (f"?app={APP}", [APP]),
            (f"?app={APP}&app=text-to-image/{OTHER}", apps),
            ("?app=nobody/has-this", []),
            ("?gpu=H100", []),
            ("?caps=whatever", apps),
        ):
            assert [runner["app"] for runner in await listed(buyer, query)] == found, query


async def test_capacity_follows_the_board(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        engine.change(ModelState(MODEL, "loading"))
        (runner,) = await listed(buyer)
        assert (runner["capacity"], runner["capacity_available"]) == (0, 0)
        engine.change(ModelState(MODEL, "failed"))
        assert await listed(buyer) == []
        engine.change(ModelState(MODEL, "ready", 1.0))
        assert len(await listed(buyer)) == 1


@pytest.mark.parametrize("tail", ["", "/", "/proxy", "/v1/images/generations"])
async def test_a_call_without_any_header_makes_images_whatever_its_path_ends_in(
    tmp_path: Path, tail: str
) -> None:
    engine = FakeEngine()
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        answer = await call(buyer, tail=tail, num_images_per_prompt=2)
        assert answer.status == 200, answer.text
        assert answer.headers[FEE] == str(64 * 64 * 2 * 5 // 2)
        assert [image["seed"] for image in answer.json["images"]] == [7, 8]
        kind, _, data = answer.json["images"][0]["url"].partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
        assert answer.json["images"][0]["nsfw"] is False
        receipt = await buyer.get(f"/jobs/{answer.headers[JOB_ID]}/receipt")
        assert receipt.json["charged"] == answer.headers[FEE]
        assert (await buyer.get(path_of(tail=tail), method="PUT")).status == 422


async def test_a_caller_may_name_its_attempt(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        assert (await call(buyer, {JOB_ID: ATTEMPT})).headers[JOB_ID] == ATTEMPT
        assert (await buyer.get(f"/jobs/{ATTEMPT}/receipt")).json["state"] == "delivered"
        assert problem(await call(buyer, {JOB_ID: ATTEMPT})) == (
            409,
            f"job id {ATTEMPT} was used before",
        )


@pytest.mark.parametrize(
    ("accept", "is_png"),
    [
        ("image/png", True),
        ("image/png;q=1, image/jpeg", True),
        ("*/*", False),
        ("image/png, */*", False),
        ("image/png, application/json", False),
        ("application/json", False),
    ],
)
async def test_who_accepts_a_png_alone_gets_the_bare_image(
    tmp_path: Path, accept: str, *, is_png: bool
) -> None:
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        answer = await call(buyer, {"Accept": accept})
        assert answer.status == 200
        assert answer.body.startswith(b"\x89PNG") is is_png
        if is_png:
            assert answer.headers["Content-Type"] == "image/png"
            assert answer.headers[SEED] == "7"
            assert answer.headers[SAFETY] == "unchecked"
            two = await call(buyer, {"Accept": accept}, num_images_per_prompt=2)
            assert problem(two)[0] == 406


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"width": 65}, 422, "multiple of 8"),
        ({"width": 8192}, 422, "width"),
        ({"num_images_per_prompt": 99}, 422, "num_images_per_prompt"),
        ({"prompt": " "}, 400, "Prompt must be provided."),
        ({"loras": '{"a": 1}'}, 400, "LoRa"),
        ({"model_id": "another"}, 400, f"This app is {MODEL}"),
        ({"body": b"{"}, 422, "not valid JSON"),
        ({"body": b""}, 422, "Field required"),
        ({"body": b"[]"}, 422, "JSON object"),
        ({"body": b" " * 300_000}, 413, "larger than 262144 bytes"),
    ],
)
async def test_what_a_model_cannot_make_is_refused_in_the_envelope_before_any_work(
    tmp_path: Path, fields: dict[str, Any], status: int, words: str
) -> None:
    engine = FakeEngine()
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        answer = await call(buyer, **fields)
        found, message = problem(answer)
        assert found == status
        assert words in message
        assert "returned 400" not in message
        assert not engine.jobs


async def test_its_own_model_may_be_named(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        assert (await call(buyer, model_id=MODEL)).status == 200


async def test_there_is_nothing_else_under_apps(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        for path in (
            "/apps/unknown/app",
            f"/apps/{route_of(MODEL)}/session",
            f"/apps/{route_of(MODEL)}/session/x/payment",
            f"/apps/{route_of(MODEL)}",
            "/apps/..%2f/app",
        ):
            answer = await buyer.post(path, b"{}", {})
            assert problem(answer)[0] == 404, path
        answer = await buyer.post("/refresh-payment", b'{"sender": 5}', {})
        assert problem(answer)[0] == 400
        answer = await buyer.post("/refresh-payment", b"[]", {})
        assert problem(answer)[0] == 400


async def test_who_finds_no_place_is_told_to_come_back(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        engine.change(ModelState(MODEL, "failed"))
        answer = await call(buyer)
        assert problem(answer) == (503, f"{BUSY}model_failed")
        assert answer.headers["Retry-After"] == "5"


@pytest.mark.parametrize(
    ("kind", "status", "message"),
    [
        (FailureKind.INVALID, 400, "no such scheduler"),
        (FailureKind.UNSAFE, 400, "no such scheduler"),
        (FailureKind.OUT_OF_MEMORY, 503, f"{BUSY}no such scheduler"),
        (FailureKind.WORKER_CRASHED, 500, "the image worker crashed during this job"),
        (FailureKind.INTERNAL, 500, "Text-to-image pipeline error."),
    ],
)
async def test_failures_are_told_without_the_words_that_steer_gateways(
    tmp_path: Path, kind: FailureKind, status: int, message: str
) -> None:
    engine = FakeEngine()
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        engine.failures.append(JobFailedError(kind, "no such scheduler"))
        assert problem(await call(buyer)) == (status, message)


async def test_a_node_for_known_gateways_wants_to_know_who_calls(tmp_path: Path) -> None:
    """Off-chain there is no challenge; a token comes with GetOrchestrator."""
    allowed: dict[str, Any] = {"allowed_gateways": ["0x" + GATEWAY_KEY.address.hex()]}
    async with (
        running_node(tmp_path, **allowed) as node,
        PayingBuyer(node) as buyer,
        PayingBuyer(node, KeySigner(b"\x33" * 32)) as stranger,
    ):
        assert problem(await call(buyer))[0] == 403
        info = await buyer.terms(job_capabilities(MODEL, "0.1.0"))
        assert info.auth_token is not None
        terms = Terms({"manifest_id": info.auth_token.session_id}, info)
        unpaid = Payment(sender=GATEWAY_KEY.address, expected_price=Fraction(1))
        answer = await call(buyer, headers_for(buyer, terms, unpaid))
        assert answer.status == 200, answer.text
        receipt = await buyer.get(f"/jobs/{answer.headers[JOB_ID]}/receipt")
        assert receipt.json["charged"] == answer.headers[FEE]
        as_stranger = Payment(sender=stranger.payer.address)
        answer = await call(stranger, headers_for(stranger, terms, as_stranger))
        assert problem(answer) == (403, "ErrSegSig")
        mismatched = headers_for(buyer, terms, unpaid, manifest="another")
        assert problem(await call(buyer, mismatched)) == (
            403,
            "mismatched manifest and auth token",
        )


def test_routes_are_safe_in_urls_and_no_two_models_share_one() -> None:
    ids = ["a/b", "a-b", "a b", "A/b", "ü", "..", "", "x" * 500, "x" * 499, "a/../b"]
    routes = [route_of(ModelId(model)) for model in ids]
    assert len(set(routes)) == len(ids)
    for route in routes:
        assert set(route) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")
        assert 8 <= len(route) <= 49
    assert route_of(ModelId("a/b")) == "a-b-c14cddc0"
