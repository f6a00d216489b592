"""The finisher: decoding, checking and encoding beside the steps, many pictures in one check."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from network.wire.safety import REFUSED_AS_UNSAFE, Safety
from node.engine.canary import Canary
from node.engine.channel import Inbox
from node.engine.finisher import Delivered, Denoised, Finisher
from node.engine.options import SafetyOptions
from node.engine.protocol import ImageDone
from node.engine.safety import CheckerError, Guard, Pixels, SafetyChecker, UnsafeImageError


@dataclass
class _Family:
    """Its samples are numbers; a picture is of that grey. A negative one cannot be decoded."""

    decoded: list[int] = field(default_factory=list)
    on_decode: Callable[[int], None] = lambda _sample: None

    def decode(self, sample: int) -> Pixels:
        self.on_decode(sample)
        self.decoded.append(sample)
        if sample < 0:
            raise RuntimeError("cannot decode")
        return np.full((16, 16, 3), sample, dtype=np.uint8)


@dataclass
class _BrightIsUnsafe:
    """Scores the brightness; tells how many pictures each call had."""

    calls: list[int] = field(default_factory=list)
    before: Callable[[], None] = lambda: None

    def scores(self, pictures: Sequence[Pixels]) -> list[float]:
        self.before()
        self.calls.append(len(pictures))
        return [float(pixels.mean()) / 255 for pixels in pictures]


class _Bench:
    def __init__(
        self, checker: Callable[[], SafetyChecker] | None, options: SafetyOptions | None = None
    ) -> None:
        self.family = _Family()
        self.sent: list[ImageDone] = []
        self.delivered: Inbox[Delivered] = Inbox()
        self.cancelled: set[int] = set()
        guard = None if checker is None else Guard(options or SafetyOptions("x"), checker)
        self.finisher = Finisher(
            send=self.sent.append,
            deliver=self.delivered.put,
            cancelled=self.cancelled,
            canary=Canary(time.monotonic),
            longest=5.0,
            guard=guard,
        )

    def put(self, ticket: int, sample: int, *, check: bool = True) -> None:
        family: Any = self.family
        self.finisher.put(Denoised(ticket, 0, family, sample, check, 0.5))

    def deliveries(self, count: int) -> list[Delivered]:
        got: list[Delivered] = []
        while len(got) < count:
            got += self.delivered.take(wait=True)
        return got

    def run(self, count: int) -> list[Delivered]:
        self.finisher.start()
        return self.deliveries(count)


def _greys(images: Sequence[ImageDone]) -> list[int]:
    return [int(np.asarray(Image.open(BytesIO(image.png)))[0, 0, 0]) for image in images]


def test_pictures_that_wait_together_are_checked_in_one_call_and_leave_in_order() -> None:
    checker = _BrightIsUnsafe()
    bench = _Bench(lambda: checker)
    samples = [200, 10, 128, 127, 255, 0]
    for ticket, sample in enumerate(samples):
        bench.put(ticket, sample)
    delivered = bench.run(len(samples))
    assert checker.calls == [len(samples)]
    assert [one.ticket for one in delivered] == list(range(len(samples)))
    assert not any(one.error for one in delivered)
    assert _greys(bench.sent) == samples
    assert [image.safety.nsfw for image in bench.sent] == [s >= 128 for s in samples]


def test_a_long_queue_is_checked_in_bounded_portions_with_the_same_verdicts_as_one_by_one() -> (
    None
):
    samples = [(37 * number) % 256 for number in range(21)]
    together, alone = _BrightIsUnsafe(), _BrightIsUnsafe()
    bench, single = _Bench(lambda: together), _Bench(lambda: alone)
    for ticket, sample in enumerate(samples):
        bench.put(ticket, sample)
    bench.run(len(samples))
    single.finisher.start()
    for ticket, sample in enumerate(samples):
        single.put(ticket, sample)
        single.deliveries(1)
    assert together.calls == [8, 8, 5]
    assert alone.calls == [1] * 21
    assert bench.sent == single.sent


def test_pictures_that_nobody_asked_to_check_are_not_looked_at() -> None:
    checker = _BrightIsUnsafe()
    bench = _Bench(lambda: checker)
    bench.put(1, 255, check=False)
    bench.put(2, 255)
    bench.put(3, 0, check=False)
    bench.run(3)
    assert checker.calls == [1]
    assert [image.safety for image in bench.sent] == [
        Safety.UNCHECKED,
        Safety.FLAGGED,
        Safety.UNCHECKED,
    ]


def test_an_operator_can_check_what_clients_want_unchecked() -> None:
    bench = _Bench(_BrightIsUnsafe, SafetyOptions("x", always=True))
    bench.put(1, 255, check=False)
    bench.run(1)
    assert bench.sent[0].safety is Safety.FLAGGED


def test_without_a_checker_pictures_say_that_nobody_looked() -> None:
    bench = _Bench(None)
    bench.put(1, 255)
    bench.run(1)
    assert bench.sent[0].safety is Safety.UNCHECKED


def test_a_refused_picture_never_leaves_and_its_neighbours_do() -> None:
    bench = _Bench(_BrightIsUnsafe, SafetyOptions("x", "refuse"))
    for ticket, sample in enumerate([0, 255, 1]):
        bench.put(ticket, sample)
    delivered = bench.run(3)
    assert [image.ticket for image in bench.sent] == [0, 2]
    assert [type(one.error) for one in delivered] == [type(None), UnsafeImageError, type(None)]
    assert REFUSED_AS_UNSAFE in str(delivered[1].error)


def test_one_that_cannot_be_decoded_and_one_that_was_cancelled_take_nobody_along() -> None:
    checker = _BrightIsUnsafe()
    bench = _Bench(lambda: checker)
    for ticket, sample in enumerate([5, -1, 6, 7]):
        bench.put(ticket, sample)
    bench.cancelled.add(2)
    # The last is cancelled while the others are being decoded: nobody checks it any more.
    bench.family.on_decode = lambda sample: bench.cancelled.add(3) if sample == 7 else None
    delivered = bench.run(4)
    assert checker.calls == [1]
    assert [image.ticket for image in bench.sent] == [0]
    assert [one.ticket for one in delivered if one.error] == [1]
    assert bench.family.decoded == [5, -1, 7]


def test_a_checker_that_fails_lets_no_picture_pass_for_checked() -> None:
    def broken() -> SafetyChecker:
        raise CheckerError("it is broken")

    bench = _Bench(broken)
    bench.put(1, 5)
    bench.put(2, 6, check=False)
    bench.put(3, 7)
    delivered = bench.run(3)
    assert [image.ticket for image in bench.sent] == [2]
    assert [one.ticket for one in delivered if isinstance(one.error, CheckerError)] == [1, 3]


def test_samples_are_taken_over_while_a_check_is_under_way() -> None:
    """The steps never wait for the finisher: what they hand over lies until it is free."""
    checking, may_go_on = threading.Event(), threading.Event()

    def hold() -> None:
        checking.set()
        may_go_on.wait(20)

    checker = _BrightIsUnsafe(before=hold)
    bench = _Bench(lambda: checker)
    bench.finisher.start()
    bench.put(0, 1)
    assert checking.wait(20)
    for ticket in range(1, 6):
        bench.put(ticket, ticket)
    assert bench.sent == []
    may_go_on.set()
    assert len(bench.deliveries(6)) == 6
    assert checker.calls == [1, 5]


@pytest.mark.parametrize("policy", ["flag", "blur"])
def test_what_is_sent_is_what_the_policy_leaves(policy: str) -> None:
    options = SafetyOptions("x", "blur" if policy == "blur" else "flag")
    bench = _Bench(_BrightIsUnsafe, options)
    bench.put(1, 255)
    bench.put(2, 3)
    bench.run(2)
    unsafe, safe = bench.sent
    assert unsafe.safety is (Safety.BLURRED if policy == "blur" else Safety.FLAGGED)
    assert safe.safety is Safety.PASSED
