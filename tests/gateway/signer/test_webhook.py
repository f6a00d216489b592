"""Who may have tickets: a real webhook over HTTP says."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from aiohttp import ClientSession, ClientTimeout, web

from gateway.signer.authorization import Webhook
from tests.gateway.signer.signing_desk import NOW, SIGNER, Desk, StubClock, asked, signing_desk

ALICE = {"Authorization": "Bearer alice", "X-Api-Key": "k"}
PAY = "/generate-live-payment"


@dataclass
class Hook:
    """The operator's authorization service."""

    answer: Any = field(default_factory=lambda: {"status": 200, "auth_id": "client:alice"})
    status: int = 200
    body: bytes | None = None
    questions: list[dict[str, Any]] = field(default_factory=list)
    bearers: list[str] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        self.questions.append(orjson.loads(await request.read()))
        self.bearers.append(request.headers.get("Authorization", ""))
        body = orjson.dumps(self.answer) if self.body is None else self.body
        return web.Response(body=body, status=self.status, content_type="application/json")


@asynccontextmanager
async def hooked(hook: Hook) -> AsyncIterator[Desk]:
    app = web.Application()
    app.router.add_post("/authorize", hook.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    clock = StubClock()
    async with ClientSession(timeout=ClientTimeout(total=2)) as session:
        webhook = Webhook(session, f"http://127.0.0.1:{port}/authorize", clock, bearer="s3")
        try:
            async with signing_desk(webhook) as desk:
                desk.clock = clock
                yield desk
        finally:
            await runner.cleanup()


async def pay(desk: Desk, headers: dict[str, str], **more: Any) -> tuple[int, dict[str, Any]]:
    status, answer, _ = await desk.call(PAY, asked(inPixels=10, **more), **headers)
    return status, answer


async def test_the_webhook_sees_headers_and_state_and_names_the_client() -> None:
    hook = Hook()
    async with hooked(hook) as desk:
        status, answer = await pay(desk, ALICE, app="text-to-image/m")
        assert status == 200
        question = hook.questions[0]
        assert question["headers"]["Authorization"] == ["Bearer alice"]
        assert question["headers"]["X-Api-Key"] == ["k"]
        assert question["state"]["App"] == "text-to-image/m"
        assert hook.bearers == ["Bearer s3"]
        await pay(desk, ALICE, state=answer["state"])
        state = hook.questions[1]["state"]
        assert state["AuthID"] == "client:alice"
        assert state["OrchestratorAddress"].lower() == "0x" + "aa" * 20
        assert state["SenderNonce"] == 1
        assert {"StateID", "Balance", "AuthExpiry", "Type", "SequenceNumber"} <= set(state)


async def test_a_refusal_comes_with_the_webhooks_own_status_and_reason() -> None:
    hook = Hook(answer={"status": 483, "reason": "insufficient balance"})
    async with hooked(hook) as desk:
        for path, body in ((PAY, asked(inPixels=1)), ("/sign-orchestrator-info", {})):
            status, answer, _ = await desk.call(path, body, **ALICE)
            assert status == 483
            assert answer == {"error": {"message": "insufficient balance"}}
        hook.answer = {"status": 401, "reason": "invalid api key", "expiry": int(NOW) + 60}
        for _ in range(2):
            assert (await pay(desk, ALICE))[0] == 401
        assert len(hook.questions) == 4, "a refusal is never kept"


async def test_a_grant_is_kept_until_it_expires_and_only_for_its_client() -> None:
    hook = Hook(answer={"status": 200, "auth_id": "alice", "expiry": int(NOW) + 60})
    async with hooked(hook) as desk:
        for _ in range(3):
            assert (await pay(desk, ALICE))[0] == 200
        assert len(hook.questions) == 1
        await pay(desk, {"Authorization": "Bearer bob"})
        await pay(desk, {})
        assert len(hook.questions) == 3
        desk.clock.seconds += 61
        hook.answer = {"status": 403, "reason": "suspended"}
        status, answer = await pay(desk, ALICE)
        assert (status, answer["error"]["message"]) == (403, "suspended")


async def test_a_grant_without_expiry_is_asked_for_each_time() -> None:
    hook = Hook()
    async with hooked(hook) as desk:
        for _ in range(3):
            await pay(desk, ALICE)
        assert len(hook.questions) == 3


async def test_a_stolen_state_is_of_no_use_to_another_client() -> None:
    hook = Hook()
    async with hooked(hook) as desk:
        _, answer = await pay(desk, ALICE)
        hook.answer = {"status": 200, "auth_id": "client:mallory"}
        status, refused = await pay(desk, {"X-Api-Key": "m"}, state=answer["state"])
        assert status == 403
        assert "another client" in refused["error"]["message"]


async def test_the_webhooks_maximum_price_holds() -> None:
    most = {"price": 0.85, "currency": "wei", "unit": "pixels"}
    hook = Hook(answer={"status": 200, "maxPrice": most})
    async with hooked(hook) as desk:
        assert (await pay(desk, ALICE))[0] == 481  # the quote is 6/7
        most["price"] = 0.86
        assert (await pay(desk, ALICE))[0] == 200


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"status": 500}, 500),
        ({"status": 401}, 500),
        ({"status": 302}, 500),
        ({"body": b"nonsense"}, 502),
        ({"body": b"[]"}, 502),
        ({"body": b"{}"}, 502),
        ({"body": b'{"status":200}' + b" " * 100_000}, 502),
        ({"answer": {"status": 200, "maxPrice": {"price": "cheap"}}}, 502),
        ({"answer": {"status": 200, "expiry": "soon"}}, 502),
        ({"answer": {"status": 204}}, 502),
    ],
)
async def test_a_broken_webhook_lets_nobody_in(change: dict[str, Any], status: int) -> None:
    async with hooked(Hook(**change)) as desk:
        got, answer = await pay(desk, ALICE)
        assert got == status
        assert "webhook" in answer["error"]["message"]
        assert SIGNER.address.hex() not in str(answer)


async def test_a_webhook_that_is_gone_lets_nobody_in() -> None:
    async with ClientSession() as session:
        webhook = Webhook(session, "http://127.0.0.1:1/", StubClock())
        async with signing_desk(webhook) as desk:
            assert (await pay(desk, ALICE))[0] == 500
