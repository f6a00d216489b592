"""What is known of orchestrators is fresh, exact, and never in a request's way."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.orchestrators.client import OrchestratorClient, open_client
from gateway.orchestrators.directory import Directory, Refreshing
from gateway.orchestrators.offer import Offer
from gateway.orchestrators.selection import Policy, Prospect, Reason
from gateway.orchestrators.standing import Delivery, Fault, Pausing
from gateway.orchestrators.terms import Terms
from network.capabilities import TEXT_TO_IMAGE, Capabilities, ModelConstraint
from network.errors import ProblemError
from network.identity import verify_session_request
from network.runtime.clock import SystemClock
from network.runtime.supervisor import supervise
from network.units import Address, ModelId
from tests.gateway.routing import SIGNER, Key, fast, open_desk, request_for, until
from tests.gateway.stub_orchestrator import StubModel, StubOrchestrator, running

M = ModelId("m")


@dataclass
class Known:
    directory: Directory
    client: OrchestratorClient

    def prospect(self, stub: StubOrchestrator, model_id: ModelId = M) -> Prospect:
        return next(p for p in self.directory.prospects(model_id) if p.uri == stub.uri)


@asynccontextmanager
async def knowing(
    uris: Sequence[str],
    refreshing: Refreshing | None = None,
    *,
    models: Sequence[ModelId] = (),
    terms: Terms = Terms(),  # noqa: B008  immutable
) -> AsyncIterator[Known]:
    clock = SystemClock()
    async with open_client(SIGNER, version="0.1.0", call_timeout=0.5) as client:
        directory = Directory(
            client=client,
            policy=Policy(max_age=1.0),
            refreshing=refreshing or fast(),
            pausing=Pausing(first=30),
            version="0.1.0",
            clock=clock,
            randomness=random.Random(1),  # noqa: S311
            models=models,
            terms=terms,
        )
        directory.list_from("settings", uris)
        async with supervise(clock) as supervisor:
            supervisor.start("orchestrators", directory.run)
            await directory.first_round(2)
            yield Known(directory, client)


async def test_prices_are_exact_although_the_list_of_all_models_is_floored() -> None:
    stub = StubOrchestrator({"m": StubModel(Fraction(1, 3)), "n": StubModel(Fraction(7, 2))})
    async with running(stub), knowing([stub.uri]) as known:
        offer = known.directory.snapshot()[0]
        assert offer.models[M].price == Fraction(1, 3)
        assert offer.models[ModelId("n")].price == Fraction(7, 2)
        assert known.directory.known_models() == ("m", "n")


async def test_models_beyond_the_priced_ones_get_an_upper_bound_until_somebody_asks() -> None:
    names = [f"m{number}" for number in range(6)]
    stub = StubOrchestrator({name: StubModel(Fraction(5, 2)) for name in names})
    refreshing = Refreshing(interval=0.1, least_interval=0.01, priced_models=2)
    async with running(stub), knowing([stub.uri], refreshing, models=[ModelId("m5")]) as known:
        models = known.directory.snapshot()[0].models
        assert models[ModelId("m5")].price == models[ModelId("m0")].price == Fraction(5, 2)
        assert models[ModelId("m3")].price == Fraction(3)
        assert not models[ModelId("m3")].exact
        known.directory.prospects(ModelId("m3"))
        await until(lambda: known.directory.snapshot()[0].models[ModelId("m3")].exact)


async def test_a_model_that_is_not_priced_does_not_hide_the_others() -> None:
    stub = StubOrchestrator({"m": StubModel(Fraction(1, 2)), "n": StubModel()}, unpriced="n")
    async with running(stub), knowing([stub.uri]) as known:
        models = known.directory.snapshot()[0].models
        assert models[M].price == Fraction(1, 2)
        assert models[ModelId("n")].price == Fraction(2)
        assert not models[ModelId("n")].exact


async def test_the_request_for_information_is_signed() -> None:
    stub = StubOrchestrator()
    async with running(stub), knowing([stub.uri]):
        request = stub.requests[0]
        verify_session_request(Address(request.address), request.signature)
        assert request.capabilities is None
        assert stub.requests[1].capabilities is not None


async def test_places_are_counted_on_between_refreshes() -> None:
    stub = StubOrchestrator(capacity=2)
    async with running(stub), knowing([stub.uri], Refreshing(interval=60)) as known:
        directory = known.directory
        assert known.prospect(stub).free == 2
        directory.claim(stub.uri, M)
        directory.claim(stub.uri, M)
        assert known.prospect(stub).free == 0
        directory.release(stub.uri, M, was_sent=False)
        assert known.prospect(stub).free == 1
        assert directory.in_flight(stub.uri) == directory.jobs_of(M) == 1
        directory.release(stub.uri, M, was_sent=False, was_busy=True)
        assert known.prospect(stub).free == 0


async def test_a_refresh_counts_only_jobs_that_can_have_arrived() -> None:
    stub = StubOrchestrator({"m": StubModel(free=1)})
    async with running(stub), knowing([stub.uri], Refreshing(interval=60)) as known:
        directory, clock = known.directory, SystemClock()
        directory.claim(stub.uri, M)
        await directory.refresh(stub.uri, M, clock.monotonic())
        assert known.prospect(stub).free == 0
        directory.note_sent(stub.uri, M)
        await directory.refresh(stub.uri, M, clock.monotonic())
        assert known.prospect(stub).free == 1
        directory.release(stub.uri, M, was_sent=True)


async def test_a_refusal_for_want_of_places_is_checked_soon() -> None:
    stub = StubOrchestrator(capacity=2)
    refreshing = Refreshing(interval=60, least_interval=0.01)
    async with running(stub), knowing([stub.uri], refreshing) as known:
        await asyncio.sleep(0.05)
        known.directory.claim(stub.uri, M)
        known.directory.release(stub.uri, M, was_sent=False, was_busy=True)
        assert known.prospect(stub).free == 0
        await until(lambda: known.prospect(stub).free == 2)


async def test_whoever_does_not_answer_delays_nobody() -> None:
    good, mute = StubOrchestrator(), StubOrchestrator(info="hang")
    async with AsyncExitStack() as stack:
        for stub in (good, mute):
            await stack.enter_async_context(running(stub))
        dead = "http://127.0.0.1:9"
        known = await stack.enter_async_context(knowing([mute.uri, dead, good.uri]))
        assert [p.uri for p in known.directory.prospects(M)] == [good.uri]
        others = {other.uri: other for other in known.directory.others(M)}
        assert "no answer" in others[mute.uri].detail
        assert others[dead].reason is Reason.UNREACHABLE


@pytest.mark.parametrize("info", ["garbage", "refuse", "huge", "capped"])
async def test_a_bad_answer_is_a_problem_that_is_told_and_forgotten(info: str) -> None:
    stub = StubOrchestrator()
    stub.info = info  # type: ignore[assignment]
    async with running(stub), knowing([stub.uri]) as known:
        state = known.directory.states()[0]
        assert state.problem
        assert state.offer is None
        stub.info = "answer"
        await until(lambda: known.directory.prospects(M))
        assert not known.directory.states()[0].problem


async def test_an_orchestrator_that_disappears_is_barred_and_comes_back() -> None:
    stub = StubOrchestrator()
    async with running(stub), knowing([]):
        pass
    port = int(stub.uri.rpartition(":")[2])
    async with knowing([stub.uri]) as known:
        async with running(stub, port):
            await until(lambda: known.directory.prospects(M))
            assert known.prospect(stub).barred is None
        await until(lambda: known.prospect(stub).barred is Reason.UNREACHABLE)
        async with running(stub, port):
            await until(lambda: known.prospect(stub).barred is None)


async def test_a_slow_answer_does_not_bar_but_the_offer_ages() -> None:
    stub = StubOrchestrator()
    async with running(stub), knowing([stub.uri]) as known:
        fresh_until = known.prospect(stub).fresh_until
        stub.info = "hang"
        await until(lambda: known.directory.states()[0].problem)
        prospect = known.prospect(stub)
        assert prospect.barred is None
        assert prospect.fresh_until <= fresh_until + 0.5


async def test_an_incompatible_orchestrator_is_barred_with_the_reason() -> None:
    stub = StubOrchestrator()
    models = {TEXT_TO_IMAGE: {"m": ModelConstraint(warm=True, capacity=1)}}
    stub.capabilities = Capabilities(frozenset({TEXT_TO_IMAGE}), models=models)
    async with running(stub), knowing([stub.uri]) as known:
        prospect = known.prospect(stub)
        assert prospect.barred is Reason.INCOMPATIBLE
        assert "H.264" in prospect.detail


@pytest.mark.parametrize(
    "transcoder", ["", "ftp://x/", "http://u:p@127.0.0.1/", "http://127.0.0.1/?a=b", "http://[::1"]
)
async def test_an_unusable_service_uri_offers_nothing(transcoder: str) -> None:
    stub = StubOrchestrator(transcoder=transcoder)
    async with running(stub), knowing([stub.uri]) as known:
        state = known.directory.states()[0]
        assert state.problem
        assert not known.directory.prospects(M)


async def test_models_nobody_offers_are_not_remembered() -> None:
    stub = StubOrchestrator()
    async with running(stub), knowing([stub.uri]) as known:
        for number in range(100):
            assert not known.directory.prospects(ModelId(f"made up {number}"))
        assert not known.directory._markets
        assert not known.directory._wanted


async def test_failures_pause_an_orchestrator_and_connections_mend_at_once() -> None:
    stub = StubOrchestrator()
    async with running(stub), knowing([stub.uri]) as known:
        now = SystemClock().monotonic()
        known.directory.note_failure(stub.uri, Fault.FAULTY, "it sent a GIF")
        assert known.prospect(stub).suspended_until > now + 25
        assert known.directory.states()[0].last_fault == "it sent a GIF"
        known.directory.note_success(stub.uri, Delivery(M, pixels=64, steps=1, seconds=0.1))
        assert known.prospect(stub).suspended_until == 0
        known.directory.note_failure(stub.uri, Fault.UNREACHABLE, "no connection")
        assert known.prospect(stub).suspended_until > now + 25
        await until(lambda: known.prospect(stub).suspended_until == 0)


async def test_cold_models_are_known_to_take_longer() -> None:
    stub = StubOrchestrator({"m": StubModel(), "cold": StubModel(warm=False)})
    async with running(stub), knowing([stub.uri]) as known:
        warm, cold = known.prospect(stub), known.prospect(stub, ModelId("cold"))
        assert cold.overhead - warm.overhead == Policy().cold_load


async def test_strangers_get_one_job_at_a_time_until_they_deliver() -> None:
    stub = StubOrchestrator({"m": StubModel(), "n": StubModel()}, capacity=8)
    n = ModelId("n")
    async with running(stub), knowing([], Refreshing(interval=60.0)) as known:
        directory = known.directory
        directory.list_from("chain", [stub.uri], are_strangers=True)
        await until(lambda: directory.prospects(M) and directory.prospects(n))
        assert (known.prospect(stub).free, known.prospect(stub, n).free) == (1, 1)
        assert directory.states()[0].allowance == 1
        # What one model's job takes is taken from all.
        directory.claim(stub.uri, M)
        assert (known.prospect(stub).free, known.prospect(stub, n).free) == (0, 0)
        directory.note_success(stub.uri, Delivery(M, 100, 1, 1.0))
        directory.release(stub.uri, M, was_sent=False)
        assert (known.prospect(stub).free, known.prospect(stub, n).free) == (2, 2)
        for _ in range(15):
            directory.note_success(stub.uri, Delivery(M, 100, 1, 1.0))
        assert (known.prospect(stub).free, known.prospect(stub, n).free) == (8, 8)
        assert directory.states()[0].allowance is None


async def test_after_a_pause_one_job_at_a_time_until_one_is_delivered(tmp_path: Path) -> None:
    stub = StubOrchestrator(capacity=4)
    async with running(stub), open_desk(tmp_path, [stub], pausing=Pausing(0.05)) as desk:
        stub.script.append("crash_500")
        with pytest.raises(ProblemError):
            await desk.dispatcher.run("r", Key(), request_for())
        await asyncio.sleep(0.1)
        stub.job_seconds, stub.most_under_way = 0.05, 0
        most: list[int] = []

        async def one(number: int) -> None:
            await desk.dispatcher.run(f"r{number}", Key(), request_for())
            most.append(stub.most_under_way)

        await asyncio.gather(*(one(number) for number in range(8)))
        assert most[0] == 1
        assert 2 <= most[-1] <= 4


async def test_what_loading_took_is_learned_from_the_first_job_on_a_cold_model() -> None:
    cold = StubOrchestrator({"m": StubModel(warm=False)})
    other = StubOrchestrator({"m": StubModel(warm=False)})
    seldom = Refreshing(interval=60.0)
    async with running(cold), running(other), knowing([cold.uri, other.uri], seldom) as known:
        assert known.prospect(cold).is_cold
        way = known.prospect(other).overhead - Policy().cold_load
        # One second of work by the pace that is believed, and ten of loading.
        work = Delivery(M, pixels=10**6, steps=2, seconds=11.0, was_cold=True)
        known.directory.note_success(cold.uri, work)
        assert not known.prospect(cold).is_cold
        assert known.prospect(cold).overhead < 10**15
        assert known.prospect(cold).pace == Policy().unmeasured_pace
        # What one of them took is believed of the other, until that is measured itself.
        await known.directory.refresh(other.uri, M, 1e12)
        assert known.prospect(other).is_cold
        assert abs(known.prospect(other).overhead - way - 10 * 10**15) < 10**15


async def test_a_measured_pace_counts_at_once_and_tells_of_those_not_measured() -> None:
    one, other = StubOrchestrator(), StubOrchestrator()
    seldom = Refreshing(interval=60.0)
    async with running(one), running(other), knowing([one.uri, other.uri], seldom) as known:
        assert known.prospect(one).pace == known.prospect(other).pace == Policy().unmeasured_pace
        known.directory.note_success(one.uri, Delivery(M, 512 * 512, 20, 1.0))
        measured = known.prospect(one).pace
        assert measured * 512 * 512 * 20 == pytest.approx(10**15, rel=1e-6)
        await known.directory.refresh(other.uri, M, 1e12)
        assert known.prospect(other).pace == measured


async def test_ping_is_answered() -> None:
    stub = StubOrchestrator()
    async with running(stub), knowing([stub.uri]) as known:
        await known.client.ping(stub.uri)


async def test_one_that_is_listed_later_is_asked_at_once() -> None:
    stub = StubOrchestrator({"m": StubModel(Fraction(1))})
    async with running(stub), knowing([]) as known:
        assert not known.directory.known_models()
        known.directory.list_from("webhook", [stub.uri])
        await known.directory.first_round(5)
        assert known.prospect(stub).price == 1
        assert known.directory.sources(stub.uri) == ("webhook",)


async def test_one_listed_by_nobody_any_more_gets_no_jobs_and_leaves_after_its_last() -> None:
    stub = StubOrchestrator({"m": StubModel(Fraction(1), free=2)})
    async with running(stub), knowing([stub.uri]) as known:
        directory = known.directory
        directory.list_from("webhook", [stub.uri])
        directory.list_from("settings", [])
        assert known.prospect(stub).free == 2
        directory.claim(stub.uri, M)
        directory.list_from("webhook", [])
        assert not directory.prospects(M)
        assert len(directory) == 0
        assert directory.jobs_of(M) == directory.in_flight(stub.uri) == 1
        directory.note_failure(stub.uri, Fault.FAULTY, "it broke")
        directory.release(stub.uri, M, was_sent=False)
        assert directory.jobs_of(M) == directory.in_flight(stub.uri) == 0
        assert directory.offer(stub.uri) is None


async def test_one_listed_again_while_it_has_jobs_is_the_same_as_before() -> None:
    stub = StubOrchestrator({"m": StubModel(Fraction(1), free=2)})
    async with running(stub), knowing([stub.uri]) as known:
        directory = known.directory
        directory.claim(stub.uri, M)
        directory.list_from("settings", [])
        directory.list_from("settings", [stub.uri])
        assert known.prospect(stub).free == 1
        directory.release(stub.uri, M, was_sent=False)
        assert known.prospect(stub).free == 2
        questions = len(stub.requests)
        await until(lambda: len(stub.requests) > questions)


async def told(stub: StubOrchestrator) -> Offer:
    """What an earlier process would have kept of it."""
    async with knowing([stub.uri]) as known:
        offer = known.directory.offer(stub.uri)
        assert offer is not None
        return replace(
            offer, auth_token=None, is_remembered=True, refreshed_at=offer.refreshed_at - 1e6
        )


async def test_what_is_remembered_is_offered_until_it_was_asked_for_once() -> None:
    stub = StubOrchestrator({"m": StubModel(Fraction(1), free=0)})
    async with running(stub):
        offer = await told(stub)
    async with knowing([]) as known:
        directory = known.directory
        directory.remember([offer])
        directory.list_from("webhook", [stub.uri])
        prospect = known.prospect(stub)
        assert prospect.barred is None
        assert (prospect.free, int(prospect.price)) == (1, 1)
        assert prospect.fresh_until > 1e300
        assert directory.states()[0].age == pytest.approx(1e6, rel=0.01)
        await until(lambda: known.prospect(stub).barred is Reason.UNREACHABLE)
        # Once forgotten by all lists, it comes back as the stranger that it is.
        directory.list_from("webhook", [])
        directory.list_from("webhook", [stub.uri])
        assert not directory.prospects(M)


async def test_a_request_asks_first_where_something_is_remembered(tmp_path: Path) -> None:
    stub = StubOrchestrator({"m": StubModel(Fraction(2))})
    async with running(stub), open_desk(tmp_path, []) as desk:
        offer = await told(stub)
        stub.models["m"].price = Fraction(3)
        desk.directory.remember([offer])
        desk.directory.list_from("webhook", [stub.uri])
        result = await desk.dispatcher.run("r1", Key(), request_for())
        assert result.fee == 3 * 64 * 64
        assert stub.seen[0].payment.expected_price == 3
        assert len(stub.seen) == 1


@given(
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.integers(1, 60),
    st.floats(1, 600),
    st.floats(1, 60),
)
def test_questions_are_spread_however_many_there_are(
    silent: int, answering: int, failures: int, max_age: float, interval: float
) -> None:
    settings = Refreshing(interval=interval)
    usual = settings.pause(silent + answering, max_age)
    assert usual >= interval
    assert usual <= max(interval, max_age / 2)
    pause = settings.pause_of_silent(usual, failures, silent)
    assert (
        usual <= pause <= max(usual, settings.longest_interval, silent * settings.silent_interval)
    )
    assert pause <= settings.pause_of_silent(usual, failures + 1, silent)
    # In the end all silent ones together take no more than a quarter of what may be asked at a time.
    last = settings.pause_of_silent(usual, 60, silent)
    assert silent / last * 2.5 <= settings.parallel / 3


async def test_hundreds_that_are_silent_do_not_keep_one_that_answers_from_being_known() -> None:
    stub = StubOrchestrator()
    dead = [f"http://127.0.0.1:{port}" for port in range(2, 302)]
    async with running(stub), knowing([*dead, stub.uri], replace(fast(), parallel=4)) as known:
        await until(lambda: known.directory.prospects(M))
        assert known.prospect(stub).barred is None
        await until(lambda: sum(s.problem != "" for s in known.directory.states()) == 300)


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        (Terms(blocked=frozenset({Address(b"\x01" * 20)})), Reason.BLOCKED),
        (Terms(min_version="99.0.0"), Reason.OUTDATED),
    ],
)
async def test_the_operators_terms_bar_whatever_is_offered(terms: Terms, reason: Reason) -> None:
    stub = StubOrchestrator()
    async with running(stub), knowing([stub.uri], terms=terms) as known:
        assert known.prospect(stub).barred is reason
        assert known.directory.states()[0].passed_over.startswith(reason.value)


async def test_what_is_remembered_of_one_that_is_silent_now_is_not_believed_any_more() -> None:
    """It is not certain that it is gone, as with one that was heard a moment ago."""
    stub = StubOrchestrator()
    async with running(stub):
        offer = await told(stub)
        stub.info = "hang"
        async with knowing([]) as known:
            known.directory.remember([offer])
            known.directory.list_from("webhook", [stub.uri])
            assert known.prospect(stub).barred is None
            await until(lambda: known.prospect(stub).barred is Reason.UNREACHABLE)
            stub.info = "answer"
            await until(lambda: known.prospect(stub).barred is None)


async def test_a_glance_sees_what_a_request_would_and_leaves_nothing_behind() -> None:
    names = [f"m{number}" for number in range(3)]
    stub = StubOrchestrator({name: StubModel(Fraction(5, 2)) for name in names})
    refreshing = Refreshing(interval=0.1, least_interval=0.01, priced_models=1)
    async with running(stub), knowing([stub.uri], refreshing) as known:
        (seen,) = known.directory.glance(ModelId("m2"))
        assert seen.barred is Reason.UNPRICED or seen.price == 3
        assert known.directory.glance(ModelId("made up")) == []
        assert known.directory._markets.of(ModelId("m2")) is None
        assert known.directory.prospects(ModelId("m2")) is not None
        assert known.directory.glance(ModelId("m2")) == [known.prospect(stub, ModelId("m2"))]
