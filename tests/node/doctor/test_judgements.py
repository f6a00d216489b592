"""What the node's doctor makes of facts: registration, prices, hardware, models."""

import random
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.chain.contracts import OnChainOrchestrator
from network.chain.model import Head
from network.findings import Finding, Verdict
from network.payments.tickets import CreationRound
from network.units import Address, ModelId, Wei
from network.wire.codec import Gpu
from node.discovery.hardware import GpuReading
from node.doctor.hardware import TorchFacts, ask_torch, judge_gpus, judge_torch
from node.doctor.models import ModelFacts, judge_memory, judge_model
from node.doctor.prices import SAMPLE, Market, Prices, judge_prices, sample
from node.doctor.registration import Membership, judge_membership
from node.doctor.running import Standing, judge_standing
from node.payments.announcing import Registered

GIB = 2**30
ETHER = 10**18
ME, OTHER = Address(b"\x01" * 20), Address(b"\x02" * 20)
URI = "https://node.example:8936"
GAS = 1_200_000

HEAD = Head(
    l1_block=100,
    current_round=9,
    last_initialized_round=9,
    creation=CreationRound(9, b"\x01" * 32),
    ticket_validity_period=2,
    pool_size=3,
    gas_price=Wei(10**8),
    is_paused=False,
    read_at=0.0,
)
WELL = Membership(
    address=ME,
    ether=Wei(ETHER),
    bonded=Wei(100 * ETHER),
    delegate=ME,
    is_registered=True,
    is_active=True,
    last_reward_round=9,
    registered=Registered(URI, ""),
)


def judged(found: Membership, uri: str | None = URI, head: Head = HEAD) -> dict[str, Finding]:
    return {one.what: one for one in judge_membership(found, head, uri, GAS)}


def test_an_orchestrator_that_is_well_is_told_so() -> None:
    assert {one.verdict for one in judged(WELL).values()} == {Verdict.OK}


@pytest.mark.parametrize(
    ("change", "what", "verdict", "words"),
    [
        ({"bonded": Wei(0)}, "stake", Verdict.FAIL, "stakes nothing"),
        ({"is_registered": False}, "stake", Verdict.FAIL, "stakes nothing"),
        ({"delegate": OTHER}, "stake", Verdict.FAIL, "are staked on 0x0202"),
        ({"is_active": False}, "active set", Verdict.FAIL, "not active in round 9"),
        (
            {"is_active": False, "is_registered": False},
            "active set",
            Verdict.FAIL,
            "not in it",
        ),
        (
            {"registered": Registered("https://old.example:1", URI)},
            "registered service URI",
            Verdict.FAIL,
            "old.example",
        ),
        (
            {"registered": Registered("", "")},
            "registered service URI",
            Verdict.FAIL,
            "no address of this node",
        ),
        (
            {"registered": Registered(URI, "https://video.example:8935")},
            "registered service URI",
            Verdict.OK,
            "video.example",
        ),
        ({"ether": Wei(0)}, "ether for gas", Verdict.FAIL, "one redemption takes"),
        ({"ether": Wei(5 * GAS * 10**8)}, "ether for gas", Verdict.WARN, "5 redemptions"),
    ],
)
def test_what_is_wrong_with_an_orchestrator_is_told(
    change: dict[str, Any], what: str, verdict: Verdict, words: str
) -> None:
    found = judged(replace(WELL, **change))[what]
    assert (found.verdict, words in found.detail) == (verdict, True), found
    assert bool(found.advice) is (verdict is not Verdict.OK)


def test_the_command_that_sets_the_uri_right_is_named() -> None:
    found = judged(replace(WELL, registered=Registered("", "")))["registered service URI"]
    assert found.advice == f"limner-node service-uri {URI}"


def test_without_a_service_uri_nothing_can_be_compared() -> None:
    assert judged(WELL, None)["registered service URI"].verdict is Verdict.WARN
    nowhere = replace(WELL, registered=Registered("", ""))
    assert judged(nowhere, None)["registered service URI"].verdict is Verdict.FAIL


def test_a_chain_without_gas_price_tells_no_number_of_redemptions() -> None:
    free = judged(WELL, head=replace(HEAD, gas_price=Wei(0)))
    assert free["ether for gas"].verdict is Verdict.SKIP


def prices(*values: int) -> tuple[Prices, ...]:
    return tuple({ModelId("m"): Fraction(value)} for value in values)


@pytest.mark.parametrize(
    ("own", "market", "verdict", "words"),
    [
        (10, Market(3, prices(10, 10, 10)), Verdict.OK, "0 of 3 others are cheaper"),
        (
            12,
            Market(9, prices(8, 10, 14)),
            Verdict.OK,
            "2 of 3 others are cheaper, the median is 10",
        ),
        (11, Market(4, prices(10, 12)), Verdict.OK, "the median is 11"),
        (21, Market(3, prices(10, 10, 10)), Verdict.WARN, "3 of 3"),
        (2, Market(3, prices(10, 10, 10)), Verdict.WARN, "0 of 3"),
        (10, Market(3, ({ModelId("x"): Fraction(1)},)), Verdict.SKIP, "nobody else offers it"),
        (10, Market(0, ()), Verdict.SKIP, "nobody else"),
        (10, Market(2, (), ("no reserve",)), Verdict.SKIP, "none of 2 asked told its prices: no"),
    ],
)
def test_prices_are_held_against_the_networks(
    own: int, market: Market, verdict: Verdict, words: str
) -> None:
    (found,) = judge_prices({ModelId("m"): Fraction(own)}, market)
    assert (found.verdict, words in found.detail) == (verdict, True), found


@given(
    st.fractions(min_value=1, max_value=10**9),
    st.lists(st.fractions(min_value=1, max_value=10**9), min_size=1, max_size=20),
)
def test_a_price_among_others_is_never_a_failure(own: Fraction, others: list[Fraction]) -> None:
    market = Market(len(others), tuple({ModelId("m"): price} for price in others))
    (found,) = judge_prices({ModelId("m"): own}, market)
    assert found.verdict in (Verdict.OK, Verdict.WARN)
    if min(others) == max(others) == own:
        assert found.verdict is Verdict.OK


def test_a_sample_is_bounded_and_leaves_ourselves_and_nonsense_out() -> None:
    pool = [OnChainOrchestrator(ME, URI), OnChainOrchestrator(OTHER, "ftp://x")]
    pool += [OnChainOrchestrator(OTHER, ""), OnChainOrchestrator(OTHER, "https://a:1")]
    luck = random.Random(1)  # noqa: S311  whom to ask
    assert sample(pool, ME, luck) == ("https://a:1",)
    many = [OnChainOrchestrator(OTHER, f"https://a:{port}") for port in range(1, 200)]
    assert len(sample(many, ME, luck)) == SAMPLE


def card(free: int = 20 * GIB) -> GpuReading:
    return GpuReading(Gpu("GPU-1", "NVIDIA H100", 9, 0, free, 80 * GIB), 0, 0)


@pytest.mark.parametrize(
    ("count", "device", "verdict"),
    [
        (1, "auto", Verdict.OK),
        (2, "cuda:1", Verdict.OK),
        (1, "cuda:1", Verdict.FAIL),
        (0, "cuda", Verdict.FAIL),
        (0, "auto", Verdict.SKIP),
        (0, "cpu", Verdict.SKIP),
    ],
)
def test_gpus_are_held_against_the_wish(count: int, device: str, verdict: Verdict) -> None:
    assert judge_gpus([card()] * count, device).verdict is verdict


def test_the_card_its_memory_and_its_driver_are_told() -> None:
    found = judge_gpus([card()], "auto", "570.86.15")
    assert found.detail == "NVIDIA H100 (20.0 of 80.0 GiB free), driver 570.86.15"


FOR_CPU = TorchFacts("2.13.0+cpu")
FOR_GPU = TorchFacts("2.13.0", "12.8", 1)
BLIND = TorchFacts("2.13.0", "12.8", 0)


@pytest.mark.parametrize(
    ("torch", "count", "device", "verdict", "words"),
    [
        (FOR_GPU, 1, "auto", Verdict.OK, "sees 1 GPU"),
        (FOR_CPU, 0, "auto", Verdict.OK, "built for CPUs only"),
        (FOR_CPU, 1, "cpu", Verdict.OK, "CPUs only"),
        (FOR_CPU, 1, "auto", Verdict.WARN, "CPUs only"),
        (FOR_CPU, 1, "cuda", Verdict.FAIL, "CPUs only"),
        (BLIND, 1, "cuda", Verdict.FAIL, "sees no GPU"),
        (BLIND, 1, "auto", Verdict.WARN, "sees no GPU"),
        (TorchFacts(problem="it is not installed"), 0, "cpu", Verdict.FAIL, "not installed"),
        (TorchFacts(problem="slow", is_unsure=True), 0, "cpu", Verdict.WARN, "slow"),
    ],
)
def test_torch_is_held_against_the_hardware(
    torch: TorchFacts, count: int, device: str, *, verdict: Verdict, words: str
) -> None:
    found = judge_torch(torch, [card()] * count, device)
    assert (found.verdict, words in found.detail) == (verdict, True), found


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (
            'print(\'{"version": "2.13.0", "cuda": "12.8", "devices": 3}\')',
            TorchFacts("2.13.0", "12.8", 3),
        ),
        (
            "raise OSError('libcudart.so.12: not found')",
            TorchFacts(problem="it cannot be imported: OSError: libcudart.so.12: not found"),
        ),
        ("print('nonsense')", TorchFacts(problem="it cannot be imported: ")),
    ],
)
async def test_torch_is_asked_in_a_process_of_its_own(program: str, expected: TorchFacts) -> None:
    assert await ask_torch(program=program) == expected


async def test_a_torch_that_never_answers_is_ended(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    program = f"import time, pathlib; time.sleep(30); pathlib.Path({str(mark)!r}).touch()"
    facts = await ask_torch(sys.executable, program, seconds=0.5)
    assert facts.is_unsure
    assert not mark.exists()


def model(size: int, *, warm: bool = True, problems: tuple[str, ...] = ()) -> ModelFacts:
    return ModelFacts("org/m", Path("/models/m"), size, warm, problems)


def test_a_model_that_is_not_whole_is_told_with_its_first_fault() -> None:
    found = judge_model(model(0, problems=("unet/a: is not whole", "b", "c")))
    assert found.verdict is Verdict.FAIL
    assert "unet/a: is not whole (and 2 more)" in found.detail
    assert judge_model(model(GIB)).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("facts", "memory", "verdict"),
    [
        ([model(GIB)], 80 * GIB, Verdict.OK),
        ([model(50 * GIB), model(40 * GIB)], 80 * GIB, Verdict.WARN),
        ([model(50 * GIB), model(40 * GIB, warm=False)], 80 * GIB, Verdict.OK),
        ([model(90 * GIB, warm=False)], 80 * GIB, Verdict.WARN),
        ([model(90 * GIB)], 0, Verdict.OK),
    ],
)
def test_weights_are_held_against_memory(
    facts: list[ModelFacts], memory: int, verdict: Verdict
) -> None:
    assert judge_memory(facts, memory, "GPU memory").verdict is verdict


@pytest.mark.parametrize(
    ("standing", "verdict"),
    [
        (Standing(is_running=True, status="OK", is_ready=True), Verdict.OK),
        (Standing(is_running=True, status="OK"), Verdict.WARN),
        (Standing(is_running=True, status="LOADING"), Verdict.WARN),
        (Standing(is_running=True, status="ERROR"), Verdict.FAIL),
        (Standing(is_running=True), Verdict.FAIL),
    ],
)
def test_a_running_node_is_judged_by_what_it_says(standing: Standing, verdict: Verdict) -> None:
    assert judge_standing(standing, "127.0.0.1:7935").verdict is verdict
