"""Random bytes that are drawn many at a time."""

import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from network.runtime.randomness import RandomBytes


def test_nothing_is_given_out_twice_also_beyond_one_draw() -> None:
    source = RandomBytes()
    given = [source.take(size) for size in (16, 24, 100, 16) for _ in range(300)]
    assert len(set(given)) == len(given)
    assert [len(one) for one in given[::300]] == [16, 24, 100, 16]


def test_threads_are_given_different_bytes() -> None:
    source = RandomBytes()
    with ThreadPoolExecutor(8) as pool:
        given = [
            one
            for some in pool.map(lambda _: [source.take(8) for _ in range(2000)], range(8))
            for one in some
        ]
    assert len(set(given)) == 16_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_fork_is_given_other_bytes_than_its_parent() -> None:
    source = RandomBytes()
    source.take(1)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:  # pragma: no cover - another process
        os.write(writing, source.take(16))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100) != source.take(16)
    os.close(reading)
    os.close(writing)


def test_texts_hold_what_addresses_take() -> None:
    source = RandomBytes()
    assert re.fullmatch("[0-9a-f]{32}", source.hex(16))
    assert re.fullmatch("[0-9A-Za-z_-]{32}", source.urlsafe(24))
