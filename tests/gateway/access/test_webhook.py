"""Bearers that the operator's service knows, on real sockets and with time in the test's hands."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from gateway.access.memory import Keeping
from gateway.access.service import open_service
from gateway.access.verdict import Allowed, Denied, read_verdict
from gateway.access.webhook import AuthWebhook
from gateway.keys import KeyGrant
from network.errors import Problem, ProblemError
from network.runtime import log
from network.runtime.supervisor import supervise
from tests.gateway.access.key_service import SECRET, Behaviour, KeyService, serving_keys
from tests.gateway.waiting import until

ALICE, TOKEN = {"status": 200, "auth_id": "alice"}, "sk-alice-7f3a"
KEEPING = Keeping(grants=60, refusals=10, stale=600, most=8)


@dataclass
class HandClock:
    seconds: float = 1000.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class Desk:
    service: KeyService
    webhook: AuthWebhook
    clock: HandClock

    async def refused(self, bearer: str = TOKEN) -> Problem:
        with pytest.raises(ProblemError) as caught:
            await self.webhook.check(bearer)
        return caught.value.problem

    async def settled(self) -> None:
        """Nobody is asked about anything any more."""
        await until(lambda: self.webhook.status()["asking"] == 0)


@pytest.fixture(autouse=True)
def said() -> io.StringIO:
    stream = io.StringIO()
    log.configure("debug", "json", stream)
    return stream


@asynccontextmanager
async def opened(timeout: float = 5.0, keeping: Keeping = KEEPING) -> AsyncIterator[Desk]:  # noqa: ASYNC109
    clock = HandClock()
    async with (
        serving_keys(KeyService({TOKEN: ALICE})) as service,
        open_service(service.url, secret=SECRET, patience=timeout, most_at_once=64) as asking,
        supervise() as supervisor,
    ):
        yield Desk(service, AuthWebhook(asking, keeping, clock, supervisor), clock)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with opened() as found:
        yield found


async def test_the_service_is_asked_as_livepeers_signer_asks(desk: Desk) -> None:
    assert await desk.webhook.check(TOKEN) == KeyGrant("auth:alice", "alice")
    assert desk.service.questions == [
        {"headers": {"Authorization": [f"Bearer {TOKEN}"]}, "state": {}}
    ]
    assert desk.service.shown == [f"Bearer {SECRET}"]


async def test_many_who_come_at_once_ask_once(desk: Desk) -> None:
    desk.service.gate.clear()
    waiting = [asyncio.create_task(desk.webhook.check(TOKEN)) for _ in range(50)]
    await until(lambda: len(desk.service.asked) == 1)
    # Whoever asked first, and leaves, takes nothing from the others.
    waiting[0].cancel()
    await asyncio.sleep(0)
    desk.service.gate.set()
    grants = await asyncio.gather(*waiting[1:])
    assert {grant.name for grant in grants} == {"alice"}
    assert desk.service.asked == [TOKEN]


async def test_a_yes_counts_for_its_time_and_is_renewed_beside_those_who_use_it(
    desk: Desk,
) -> None:
    await desk.webhook.check(TOKEN)
    desk.clock.seconds += 47
    await desk.webhook.check(TOKEN)
    assert len(desk.service.asked) == 1
    # Near its end, and the service is slow: nobody waits for it.
    desk.clock.seconds += 2
    desk.service.gate.clear()
    assert (await desk.webhook.check(TOKEN)).name == "alice"
    await until(lambda: len(desk.service.asked) == 2)
    desk.service.gate.set()
    await desk.settled()
    desk.clock.seconds += 40
    await desk.webhook.check(TOKEN)
    assert len(desk.service.asked) == 2


async def test_a_key_that_is_withdrawn_stops_when_its_time_is_over(desk: Desk) -> None:
    await desk.webhook.check(TOKEN)
    del desk.service.knows[TOKEN]
    desk.clock.seconds += 61
    problem = await desk.refused()
    assert (problem.status, problem.message) == (401, "nobody has this key")
    # And its earlier yes is no comfort when the service goes away.
    desk.service.behaviour = "crash"
    desk.clock.seconds += 11
    assert (await desk.refused()).status == 503


async def test_a_no_counts_for_a_shorter_time(desk: Desk) -> None:
    assert [(await desk.refused("bad")).status for _ in range(3)] == [401] * 3
    assert desk.service.asked == ["bad"]
    desk.service.knows["bad"] = {"auth_id": "bob"}
    desk.clock.seconds += 10
    assert (await desk.webhook.check("bad")).name == "bob"


async def test_known_keys_work_while_the_service_is_away_and_no_longer_than_that(
    desk: Desk,
) -> None:
    await desk.webhook.check(TOKEN)
    desk.service.behaviour = "crash"
    desk.clock.seconds += 61
    assert (await desk.webhook.check(TOKEN)).name == "alice"
    unknown = await desk.refused("sk-bob")
    assert (unknown.status, unknown.code) == (503, "authentication_unavailable")
    assert "cannot be asked: it answered 500" in unknown.message
    assert unknown.headers["Retry-After"]
    # Whoever is known does not wait for what hangs, either.
    desk.service.behaviour = "answer"
    desk.service.gate.clear()
    desk.clock.seconds += 500
    assert (await desk.webhook.check(TOKEN)).name == "alice"
    assert desk.webhook.status()["asking"] == 1
    desk.service.gate.set()
    await desk.settled()
    desk.service.behaviour = "crash"
    desk.clock.seconds += 661
    assert (await desk.refused()).status == 503


async def test_a_dead_service_holds_nobody_up_and_is_found_when_it_is_back(desk: Desk) -> None:
    await desk.webhook.check(TOKEN)
    desk.service.behaviour = "crash"
    for number in range(20):
        problem = await desk.refused(f"sk-{number}")
        assert problem.status == 503
        assert "it answered 500" in problem.message
    assert len(desk.service.asked) == 1 + 5
    desk.service.behaviour = "answer"
    assert (await desk.refused("sk-bob")).status == 503, "it is not asked yet"
    desk.clock.seconds += 1
    desk.service.knows["sk-bob"] = {"auth_id": "bob"}
    assert (await desk.webhook.check("sk-bob")).name == "bob"
    assert (await desk.refused("sk-carol")).status == 401
    assert desk.webhook.status()["is_away"] is False


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        ("hang", "did not answer within 0.3 s"),
        ("drip", "did not answer within 0.3 s"),
        ("huge", "its answer is too long"),
        ("drop", "the connection failed"),
        ("redirect", "it answered 302"),
        ("compressed", "its answer is no JSON object"),
        ("not_json", "its answer is no JSON object"),
        ("crash", "it answered 500"),
    ],
)
async def test_what_is_no_answer_lets_nobody_in_and_is_named(
    behaviour: Behaviour, why: str, said: io.StringIO
) -> None:
    async with opened(timeout=0.3) as desk:
        desk.service.behaviour = behaviour
        problem = await desk.refused()
        assert problem.status == 503
        assert why in problem.message
        assert desk.service.followed == 0
        port = desk.service.url.rsplit(":", 1)[1].partition("/")[0]
    for secret in (TOKEN, SECRET, port):
        assert secret not in problem.message
        assert secret not in said.getvalue()
    assert said.getvalue().count("auth_webhook_fails") == 1


async def test_a_connection_that_was_closed_meanwhile_is_no_fault(desk: Desk) -> None:
    await desk.webhook.check(TOKEN)
    desk.service.drops = 1
    assert (await desk.refused("sk-bob")).status == 401
    desk.service.drops = 2
    assert (await desk.refused("sk-carol")).status == 503


async def test_a_service_that_does_not_listen_is_named_as_such() -> None:
    async with serving_keys(KeyService()) as gone:
        url = gone.url
    async with (
        open_service(url, secret="", patience=2, most_at_once=1) as asking,
        supervise() as supervisor,
    ):
        desk = Desk(gone, AuthWebhook(asking, KEEPING, HandClock(), supervisor), HandClock())
        assert "it cannot be connected to" in (await desk.refused()).message


async def test_what_it_says_wrongly_of_one_is_no_reason_not_to_ask_about_others(
    desk: Desk,
) -> None:
    desk.service.knows["sk-odd"] = {"auth_id": "odd", "limits": {"request_per_minute": 1}}
    for _ in range(10):
        problem = await desk.refused("sk-odd")
        assert problem.status == 503
        assert "there is no limit 'request_per_minute'" in problem.message
    assert (await desk.webhook.check(TOKEN)).name == "alice"


async def test_guesses_push_out_no_key_that_is_good(desk: Desk) -> None:
    await desk.webhook.check(TOKEN)
    for number in range(30):
        assert (await desk.refused(f"guess-{number}")).status == 401
    await desk.webhook.check(TOKEN)
    assert desk.service.asked.count(TOKEN) == 1
    assert len(desk.webhook._memory._refusals) == KEEPING.most


async def test_so_many_keys_are_remembered_those_used_last(desk: Desk) -> None:
    for number in range(12):
        desk.service.knows[f"sk-{number}"] = {"auth_id": f"user-{number}"}
        await desk.webhook.check(f"sk-{number}")
        await desk.webhook.check("sk-0")
    assert desk.webhook.status()["known"] == KEEPING.most
    assert desk.service.asked.count("sk-0") == 1
    assert len(desk.webhook.grants()) == KEEPING.most


async def test_a_flood_of_guesses_leaves_room_for_those_who_are_known() -> None:
    async with opened(keeping=Keeping(grants=60, refusals=10, stale=600, most=100)) as desk:
        await desk.webhook.check(TOKEN)
        desk.clock.seconds += 61
        desk.service.gate.clear()
        guesses = [asyncio.create_task(desk.webhook.check(f"guess-{n}")) for n in range(48)]
        await until(lambda: len(desk.service.asked) == 1 + 48)
        problem = await desk.refused("one-more")
        assert problem.status == 503
        assert "too many others" in problem.message
        known = asyncio.create_task(desk.webhook.check(TOKEN))
        await until(lambda: desk.service.asked[-1] == TOKEN)
        desk.service.gate.set()
        assert (await known).name == "alice"
        answers = await asyncio.gather(*guesses, return_exceptions=True)
        assert all(isinstance(one, ProblemError) for one in answers)


async def test_a_service_may_want_to_be_asked_sooner(desk: Desk) -> None:
    desk.service.knows[TOKEN] = {**ALICE, "expiry": int(desk.clock.seconds) + 30}
    await desk.webhook.check(TOKEN)
    desk.clock.seconds += 23
    await desk.webhook.check(TOKEN)
    assert len(desk.service.asked) == 1
    del desk.service.knows[TOKEN]
    desk.clock.seconds += 8
    assert (await desk.refused()).status == 401


async def test_keys_that_it_wants_to_be_asked_about_soon_work_too_while_it_is_away(
    desk: Desk,
) -> None:
    desk.service.knows[TOKEN] = {**ALICE, "expiry": int(desk.clock.seconds) + 30}
    await desk.webhook.check(TOKEN)
    desk.service.behaviour = "crash"
    desk.clock.seconds += 629
    assert (await desk.webhook.check(TOKEN)).name == "alice"
    desk.clock.seconds += 1
    assert (await desk.refused()).status == 503


@pytest.mark.parametrize("expiry", [0, 1])
async def test_a_yes_that_is_over_already_counts_once(desk: Desk, expiry: int) -> None:
    desk.service.knows[TOKEN] = {**ALICE, "expiry": expiry}
    for _ in range(2):
        assert (await desk.webhook.check(TOKEN)).name == "alice"
    assert len(desk.service.asked) == 2
    desk.service.behaviour = "crash"
    assert (await desk.refused()).status == 503


async def test_what_cannot_be_a_key_is_shown_to_nobody(desk: Desk) -> None:
    for odd in ("\udcff", "schlüssel", "a\x7f", "x" * 8193):
        assert (await desk.refused(odd)).status == 401
    assert desk.service.asked == []


class Stranger:
    """A service that does not accept the gateway's secret."""

    async def ask(self, bearer: str) -> Allowed | Denied:
        del bearer
        return read_verdict(401, b"")


async def test_a_service_that_may_not_know_the_gateway_is_told_of_once_a_minute(
    said: io.StringIO,
) -> None:
    clock = HandClock()
    async with supervise() as supervisor:
        desk = Desk(KeyService({}), AuthWebhook(Stranger(), KEEPING, clock, supervisor), clock)
        for number in range(3):
            assert (await desk.refused(f"sk-{number}")).status == 401
        assert said.getvalue().count("auth_webhook_answers_401") == 1
        clock.seconds += 61
        await desk.refused("sk-late")
    assert said.getvalue().count("auth_webhook_answers_401") == 2
    assert "auth_webhook.secret" in said.getvalue()
    assert "sk-" not in said.getvalue()
