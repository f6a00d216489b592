"""Delivered images are made again elsewhere, and who stands alone against two others is found out."""

import io
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from fractions import Fraction
from itertools import product
from math import inf
from pathlib import Path
from zlib import compress as deflate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from structlog.testing import capture_logs

from gateway.api.metrics import Gauges, Metrics
from gateway.dispatch import spot_checks
from gateway.dispatch.likeness import Undecodable, likeness
from gateway.dispatch.spot_checks import KEY_ID, Checking, SpotChecks
from gateway.dispatch.verdict import Finding, Verdict, after_three, after_two
from gateway.orchestrators.answers import Expected, OrchestratorFailed
from network.errors import ConfigError
from network.runtime.clock import SystemClock
from network.runtime.supervisor import supervise
from network.units import Wei
from tests.gateway.pictures import SIGNATURE, chunk, header
from tests.gateway.routing import Desk, Key, open_desk, request_for, until
from tests.gateway.stub_orchestrator import StubModel, StubOrchestrator, png, running
from tests.gateway.test_app import serving, settings_for
from tests.gateway.waiting import until_async

EXPECTED = Expected(1, 64, 64, 0)
LEAST = Checking(1.0, Wei(0)).least_likeness


def scene(seed: int, width: int = 64, height: int = 64) -> Image.Image:
    """Eight by eight fields of colour, which stand for what a picture shows."""
    colours = random.Random(seed)  # noqa: S311
    fields = Image.new("RGB", (8, 8))
    for x, y in product(range(8), range(8)):
        fields.putpixel((x, y), (colours.randrange(256), colours.randrange(256), 128))
    return fields.resize((width, height), Image.Resampling.BICUBIC)


def file_of(image: Image.Image) -> bytes:
    written = io.BytesIO()
    image.save(written, "PNG")
    return written.getvalue()


def honest(width: int, height: int, seed: int) -> bytes:
    return file_of(scene(seed, width, height))


def cheating(width: int, height: int, seed: int) -> bytes:
    return file_of(scene(seed + 1000, width, height))


def rounded_otherwise(image: Image.Image, seed: int) -> Image.Image:
    """As another device makes it: a level or two here and there."""
    noise = random.Random(seed)  # noqa: S311
    levels = bytes(min(max(value + noise.randrange(-3, 4), 0), 255) for value in image.tobytes())
    return Image.frombytes("RGB", image.size, levels)


@given(st.integers(0, 500))
def test_what_devices_round_differently_is_alike_and_another_picture_is_not(seed: int) -> None:
    image = scene(seed)
    known = file_of(image)
    assert likeness(known, known, EXPECTED) == inf
    assert likeness(known, file_of(rounded_otherwise(image, seed)), EXPECTED) > LEAST + 15
    other = file_of(scene(seed + 1))
    assert likeness(known, other, EXPECTED) < LEAST - 5
    assert likeness(known, other, EXPECTED) == likeness(other, known, EXPECTED)


def test_a_picture_that_shows_less_is_not_alike() -> None:
    image = scene(3)
    grey = Image.new("RGB", image.size, (128, 128, 128))
    assert likeness(file_of(image), file_of(grey), EXPECTED) < LEAST
    blurred = image.filter(ImageFilter.GaussianBlur(12))
    assert likeness(file_of(image), file_of(blurred), EXPECTED) < LEAST


#: Every part is whole, and what the pixels unpack from ends early.
_CUT_SHORT = SIGNATURE + header(64, 64) + chunk(b"IDAT", deflate(bytes(99))[:9]) + chunk(b"IEND")


@pytest.mark.parametrize("data", [png(64, 64), _CUT_SHORT])
def test_what_cannot_be_decoded_is_refused(data: bytes) -> None:
    with pytest.raises(Undecodable, match="cannot be decoded"):
        likeness(data, file_of(scene(1)), EXPECTED)


def test_a_second_header_does_not_make_a_bomb_of_an_image() -> None:
    bomb = file_of(scene(1))[:33] + file_of(Image.new("RGB", (640, 640)))[8:]
    # Which is what a decoder sees in it.
    assert Image.open(io.BytesIO(bomb)).size == (640, 640)
    with pytest.raises(OrchestratorFailed, match="two headers"):
        likeness(bomb, file_of(scene(1)), EXPECTED)


def test_nothing_of_another_size_is_decoded() -> None:
    with pytest.raises(OrchestratorFailed, match="640x640"):
        likeness(file_of(Image.new("RGB", (640, 640))), file_of(scene(1)), EXPECTED)


def test_one_against_one_is_no_verdict_unless_the_other_is_trusted() -> None:
    for trusted in (True, False):
        verdict = after_two("a", are_alike=True, is_second_trusted=trusted)
        assert verdict == Verdict(Finding.AGREED)
    assert after_two("a", are_alike=False, is_second_trusted=False) is None
    verdict = after_two("a", are_alike=False, is_second_trusted=True)
    assert verdict == Verdict(Finding.DISAGREED, "a")


@pytest.mark.parametrize(
    ("like_checked", "like_second", "odd"),
    [(True, False, "b"), (False, True, "a"), (False, False, ""), (True, True, "")],
)
def test_of_three_the_one_that_stands_alone_is_accused(
    *, like_checked: bool, like_second: bool, odd: str
) -> None:
    verdict = after_three(
        "a", "b", is_third_like_checked=like_checked, is_third_like_second=like_second
    )
    assert verdict.odd == odd
    assert (verdict.finding is Finding.DISAGREED) is bool(odd)


def stub(price: int, draw: object) -> StubOrchestrator:
    return StubOrchestrator({"m": StubModel(Fraction(price))}, draw=draw)  # type: ignore[arg-type]


@asynccontextmanager
async def checking(
    tmp_path: Path, stubs: list[StubOrchestrator], settings: Checking
) -> AsyncIterator[tuple[Desk, SpotChecks]]:
    clock = SystemClock()
    async with open_desk(tmp_path, stubs) as desk, supervise(clock) as supervisor:
        checks = spot_checks.begin(
            settings,
            desk.dispatcher,
            desk.directory,
            random.Random(1),  # noqa: S311
            supervisor,
        )
        assert checks is not None
        yield desk, checks


async def deliver_and_check(desk: Desk, checks: SpotChecks) -> dict[str, int]:
    """One delivery, and what its check came to."""
    before = sum(checks.figures().values())
    result = await desk.dispatcher.run("r1", Key(), request_for(num_images_per_prompt=2))
    await result.settled
    await until(lambda: sum(checks.figures().values()) > before)
    await until(lambda: not desk.dispatcher.in_flight)
    return {finding: count for finding, count in checks.figures().items() if count}


PLENTY = Checking(1.0, Wei(10**12))


@pytest.mark.parametrize("cheat", [0, 1, 2])
async def test_who_cheats_is_found_by_a_third_opinion_whoever_was_checked(
    tmp_path: Path, cheat: int
) -> None:
    stubs = [stub(price, cheating if price == cheat else honest) for price in (0, 1, 2)]
    a, b, c = stubs
    async with (
        running(a),
        running(b),
        running(c),
        checking(tmp_path, stubs, PLENTY) as (desk, checks),
    ):
        with capture_logs() as logs:
            found = await deliver_and_check(desk, checks)
        faults = {state.uri: state.fault for state in desk.directory.states()}
        # The third is not asked where the first two agree.
        assert found == ({"agreed": 1} if cheat == 2 else {"disagreed": 1})
        assert [faults[one.uri] for one in stubs] == [
            "wrong" if number == cheat != 2 else "" for number in range(3)
        ]
        told = [line for line in logs if line["event"] == "spot_check_disagreed"]
        if cheat != 2:
            assert [(line["request_id"], line["orchestrator"]) for line in told] == [
                ("r1", stubs[cheat].uri)
            ]
        assert "a boat" not in str(logs)
        # It is paid from its own budget, and is not checked itself.
        usage = {total.group: total.fee for total in await desk.journal.usage("key")}
        assert usage[KEY_ID] == 64 * 64 * sum(range(1, len(b.seen + c.seen) + 1))
        assert (len(a.seen), len(b.seen), len(c.seen)) == (1, 1, int(cheat != 2))
    again = b.seen[0].body
    assert (again["seed"], again["num_images_per_prompt"], again["deterministic"]) == (7, 1, True)


def showing_nothing(width: int, height: int, seed: int) -> bytes:
    """Sound in every part, but for the pixels that nobody looks at."""
    del seed
    pixels = chunk(b"IDAT", deflate(bytes(99))[:9])
    return SIGNATURE + header(width, height) + pixels + chunk(b"IEND")


async def test_what_shows_nothing_is_wrong_without_anybody_elses_word(tmp_path: Path) -> None:
    cheat, other = stub(0, showing_nothing), stub(1, honest)
    async with (
        running(cheat),
        running(other),
        checking(tmp_path, [cheat, other], PLENTY) as (desk, checks),
    ):
        assert await deliver_and_check(desk, checks) == {"disagreed": 1}
        assert [state.fault for state in desk.directory.states()] == ["wrong", ""]
        assert not other.seen


async def test_an_opinion_that_shows_nothing_is_wrong_as_well(tmp_path: Path) -> None:
    fine, cheat = stub(0, honest), stub(1, showing_nothing)
    async with (
        running(fine),
        running(cheat),
        checking(tmp_path, [fine, cheat], PLENTY) as (desk, checks),
    ):
        assert await deliver_and_check(desk, checks) == {"open": 1}
        assert [state.fault for state in desk.directory.states()] == ["", "wrong"]


async def test_the_word_of_a_trusted_orchestrator_decides(tmp_path: Path) -> None:
    cheat, other, trusted = stub(0, cheating), stub(1, cheating), stub(9, honest)
    async with running(cheat), running(other), running(trusted):
        settings = Checking(1.0, Wei(10**12), trusted.uri)
        async with checking(tmp_path, [cheat, other, trusted], settings) as (desk, checks):
            assert await deliver_and_check(desk, checks) == {"disagreed": 1}
            assert (len(other.seen), len(trusted.seen)) == (0, 1)
            assert desk.directory.states()[0].fault == "wrong"


async def test_where_all_differ_nobody_is_accused(tmp_path: Path) -> None:
    stubs = [
        stub(0, honest),
        stub(1, cheating),
        stub(2, lambda w, h, seed: honest(w, h, seed + 2000)),
    ]
    async with (
        running(stubs[0]),
        running(stubs[1]),
        running(stubs[2]),
        checking(tmp_path, stubs, PLENTY) as (desk, checks),
    ):
        assert await deliver_and_check(desk, checks) == {"open": 1}
        assert all(not state.fault for state in desk.directory.states())


async def test_what_a_safety_check_objects_to_and_the_trusted_ones_own_is_not_checked(
    tmp_path: Path,
) -> None:
    trusted, other = stub(0, honest), stub(1, honest)
    async with running(trusted), running(other):
        settings = Checking(1.0, Wei(10**12), trusted.uri)
        async with checking(tmp_path, [trusted, other], settings) as (desk, _):
            await (await desk.dispatcher.run("r1", Key(), request_for())).settled
            await until(lambda: not desk.dispatcher.in_flight)
            assert (len(trusted.seen), len(other.seen)) == (1, 0)
    unsafe, other = stub(0, honest), stub(1, honest)
    unsafe.verdict = {"nsfw": True}
    (tmp_path / "2").mkdir()
    async with (
        running(unsafe),
        running(other),
        checking(tmp_path / "2", [unsafe, other], PLENTY) as (desk, checks),
    ):
        await (await desk.dispatcher.run("r1", Key(), request_for())).settled
        # Whatever was to be checked would have begun before this one's check is done.
        unsafe.verdict = {}
        assert await deliver_and_check(desk, checks) == {"agreed": 1}
        assert len(other.seen) == 1


async def test_no_check_begins_while_clients_wait_for_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = stub(0, honest), stub(1, honest)
    async with (
        running(one),
        running(other),
        checking(tmp_path, [one, other], PLENTY) as (desk, checks),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(type(desk.dispatcher), "waiting", 1)
            await (await desk.dispatcher.run("r0", Key(), request_for())).settled
        assert await deliver_and_check(desk, checks) == {"agreed": 1}
        assert len(other.seen) == 1


@pytest.mark.parametrize("budget", [0, 64 * 64 - 1])
async def test_checks_cost_no_more_than_they_may(tmp_path: Path, budget: int) -> None:
    cheat, other = stub(0, cheating), stub(1, honest)
    async with (
        running(cheat),
        running(other),
        checking(tmp_path, [cheat, other], Checking(1.0, Wei(budget))) as (desk, checks),
    ):
        assert await deliver_and_check(desk, checks) == {"open": 1}
        assert not other.seen


async def test_without_anybody_else_a_check_is_open_and_the_next_goes_on(tmp_path: Path) -> None:
    only = stub(0, honest)
    async with running(only), checking(tmp_path, [only], PLENTY) as (desk, checks):
        assert await deliver_and_check(desk, checks) == {"open": 1}
        assert await deliver_and_check(desk, checks) == {"open": 2}


async def test_only_a_share_is_checked(tmp_path: Path) -> None:
    one, other = stub(0, honest), stub(1, honest)
    settings = Checking(0.3, Wei(10**12))
    async with (
        running(one),
        running(other),
        checking(tmp_path, [one, other], settings) as (desk, checks),
    ):
        for number in range(30):
            await desk.dispatcher.run(f"r{number}", Key(), request_for())
            await until(lambda: not desk.dispatcher.in_flight)
        # What the seeded randomness draws.
        draws = random.Random(1)  # noqa: S311
        expected = sum(draws.random() < 0.3 for _ in range(30))
        await until(lambda: checks.figures()["agreed"] == expected)
        assert len(other.seen) == expected


async def test_what_checks_came_to_is_a_metric() -> None:
    none: Callable[[], int] = lambda: 0  # noqa: E731
    gauges = Gauges(none, none, none, none, none, dict, dict, lambda: {"agreed": 3, "open": 1})
    text = (await Metrics(gauges).render()).decode()
    assert 'limner_gateway_spot_checks_total{finding="agreed"} 3.0' in text
    assert 'limner_gateway_spot_checks_total{finding="open"} 1.0' in text


async def test_without_what_compares_images_the_setting_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spot_checks, "can_compare", lambda: False)
    with pytest.raises(ConfigError, match="Pillow"):
        async with checking(tmp_path, [], PLENTY):
            pass


async def test_nothing_is_checked_unless_the_operator_wants_it(tmp_path: Path) -> None:
    async with open_desk(tmp_path, []) as desk, supervise(SystemClock()) as supervisor:
        never = Checking(0.0, Wei(0))
        randomness = random.Random(1)  # noqa: S311
        begun = spot_checks.begin(never, desk.dispatcher, desk.directory, randomness, supervisor)
        assert begun is None
        assert desk.dispatcher.witness is None


async def test_a_gateway_checks_as_its_settings_say(tmp_path: Path) -> None:
    cheat, other, trusted = stub(1, cheating), stub(2, honest), stub(3, honest)
    async with running(cheat), running(other), running(trusted):
        checks = {"share": 1, "wei_per_day": 10**9, "trusted": trusted.uri + "/"}
        uris = [one.uri for one in (cheat, other, trusted)]
        async with serving(settings_for(tmp_path, *uris, spot_checks=checks)) as stage:
            assert (await stage.post()).status == 200

            async def is_found() -> bool:
                return bool((await stage.status())["spot_checks"]["disagreed"])

            await until_async(is_found)
            states = {one["uri"]: one["fault"] for one in (await stage.status())["orchestrators"]}
            assert states == {cheat.uri: "wrong", other.uri: "", trusted.uri: ""}
            assert not other.seen
