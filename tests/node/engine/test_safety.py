"""The guard: thresholds, policies, and what is left of a blurred picture."""

import threading
import time
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from network.wire.safety import Safety
from node.engine.canary import Canary
from node.engine.options import SafetyOptions
from node.engine.protocol import CheckerChanged
from node.engine.safety import (
    CheckerError,
    CheckerInLoading,
    Guard,
    Pixels,
    SafetyChecker,
    blurred,
)

Policy = Literal["flag", "blur", "refuse"]


class RedIsUnsafe:
    """Scores the mean of the red channel."""

    def scores(self, pictures: Sequence[Pixels]) -> list[float]:
        return [float(pixels[:, :, 0].mean()) / 255 for pixels in pictures]


class Says:
    def __init__(self, score: float) -> None:
        self.score = score

    def scores(self, pictures: Sequence[Pixels]) -> list[float]:
        return [self.score for _ in pictures]


def picture(red: int, width: int = 40, height: int = 24) -> Pixels:
    pixels = np.random.default_rng(red).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[:, :, 0] = red
    return pixels


def guard(checker: SafetyChecker, threshold: float = 0.5, policy: Policy = "flag") -> Guard:
    return Guard(SafetyOptions("x", policy, threshold), lambda: checker)


@pytest.mark.parametrize("policy", ["flag", "blur", "refuse"])
def test_each_picture_is_judged_by_its_own_score_and_the_safe_ones_are_left_alone(
    policy: Policy,
) -> None:
    pictures = [picture(0), picture(255), picture(100, 8, 64)]
    safe, unsafe, other = guard(RedIsUnsafe(), policy=policy).judge(pictures)
    for judged, pixels in ((safe, pictures[0]), (other, pictures[2])):
        assert judged.safety is Safety.PASSED
        assert np.array_equal(judged.pixels, pixels)
        assert not judged.refused
    assert unsafe.safety.nsfw
    assert unsafe.refused is (policy == "refuse")
    assert (unsafe.safety is Safety.BLURRED) is (policy == "blur")
    assert np.array_equal(unsafe.pixels, pictures[1]) is (policy != "blur")


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_picture_is_unsafe_from_the_threshold_on(score: float, threshold: float) -> None:
    (judged,) = guard(Says(score), threshold).judge([picture(1)])
    assert judged.safety.nsfw is (score >= threshold)


def test_a_score_that_is_no_number_does_not_pass() -> None:
    (judged,) = guard(Says(float("nan"))).judge([picture(1)])
    assert judged.safety.nsfw


def test_a_checker_that_loses_a_picture_is_an_error_and_no_pass() -> None:
    class Forgets:
        def scores(self, pictures: Sequence[Pixels]) -> list[float]:
            return [0.0] * (len(pictures) - 1)

    with pytest.raises(ValueError, match="shorter"):
        guard(Forgets()).judge([picture(1), picture(2)])


@given(st.integers(8, 96), st.integers(8, 96), st.integers(0, 2**32))
def test_a_blurred_picture_holds_its_64_mean_colours_and_nothing_else(
    width: int, height: int, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    blur = blurred(pixels)
    assert blur.shape == pixels.shape
    assert blur.dtype == np.uint8
    # Pictures that agree in these colours become one and the same, so nobody can tell them apart.
    cells = Image.fromarray(pixels).resize((8, 8), Image.Resampling.BOX)
    expected = cells.resize((width, height), Image.Resampling.BICUBIC)
    assert np.array_equal(blur, np.asarray(expected))


def test_fine_structure_is_gone_from_a_blurred_picture() -> None:
    rows, columns = np.indices((64, 64))
    board = np.where((rows + columns) % 2, 255, 0).astype(np.uint8)[:, :, None].repeat(3, axis=2)
    blur = blurred(board)
    assert np.ptp(board) == 255
    assert np.ptp(blur) <= 1


@pytest.mark.parametrize(("asked", "always"), [(True, False), (False, True), (False, False)])
def test_the_client_decides_unless_the_operator_always_checks(asked: bool, always: bool) -> None:  # noqa: FBT001
    wants = Guard(SafetyOptions("x", always=always), lambda: Says(0)).wants(asked=asked)
    assert wants is (asked or always)


@pytest.mark.parametrize("policy", ["flag", "blur", "refuse"])
def test_nobody_watches_an_image_grow_that_might_have_to_be_hidden(policy: Policy) -> None:
    def may(*, asked: bool, always: bool = False) -> bool:
        options = SafetyOptions("x", policy, always=always)
        return Guard(options, lambda: Says(0)).may_preview(asked=asked)

    assert may(asked=False)
    assert may(asked=True) is (policy == "flag")
    assert may(asked=False, always=True) is (policy == "flag")


def _loading(
    load: object, canary: Canary | None = None
) -> tuple[CheckerInLoading, list[CheckerChanged]]:
    told: list[CheckerChanged] = []
    assert callable(load)
    checker = CheckerInLoading(
        load, report=told.append, canary=canary or Canary(time.monotonic), longest_load=5.0
    )
    return checker, told


def test_who_needs_a_checker_waits_until_it_is_loaded() -> None:
    may_load, canary = threading.Event(), Canary(time.monotonic)

    def load() -> SafetyChecker:
        may_load.wait(10)
        return Says(1.0)

    checker, told = _loading(load, canary)
    checker.start()
    got: list[SafetyChecker] = []
    waiting = threading.Thread(target=lambda: got.append(checker()))
    waiting.start()
    while {activity.name for activity in canary.activities()} != {
        "loading",
        "waiting for the safety checker",
    }:
        time.sleep(0.001)
    assert not got
    may_load.set()
    waiting.join(10)
    assert isinstance(got[0], Says)
    while not told:
        time.sleep(0.001)
    assert told == [CheckerChanged("ready")]


@pytest.mark.parametrize("error", [CheckerError("it is empty"), RuntimeError("it is empty")])
def test_a_checker_that_cannot_be_loaded_says_why_to_everybody_who_needs_it(
    error: Exception,
) -> None:
    def load() -> SafetyChecker:
        raise error

    checker, told = _loading(load)
    checker.start()
    for _ in range(2):
        with pytest.raises(CheckerError, match="it is empty"):
            checker()
    while not told:
        time.sleep(0.001)
    assert told[0].status == "failed"
    assert "it is empty" in told[0].detail
