import re
from contextlib import suppress
from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import orjson
import pytest
from hypothesis import given

from node.apps.heartbeat import Asked, read_heartbeat

#: As the official client sends it.
GOOD: dict[str, Any] = {
    "runner_url": "http://127.0.0.1:9000/base",
    "app": "acme/upscaler",
    "mode": "single-shot",
    "capacity": 2,
    "price_info": {"price": 0.003, "currency": "usd", "unit": "fixed"},
    "session_ids": [],
    "status": "ready",
    "gpu": {"id": "GPU-1", "name": "H100", "vram_mb": 81559},
}


def body(**changes: Any) -> bytes:
    return orjson.dumps({**GOOD, **changes})


def test_what_the_official_client_sends_is_understood() -> None:
    beat = read_heartbeat(body())
    assert beat.runner_id == ""
    told = beat.told
    assert (str(told.url), told.app, told.mode) == (
        "http://127.0.0.1:9000/base",
        "acme/upscaler",
        "single-shot",
    )
    assert told.asked == Asked(Fraction(3, 1000), "fixed")
    assert told.capacity == 2
    assert told.is_ready
    assert told.gpu is not None
    assert (told.gpu.name, told.gpu.memory_total) == ("H100", 81559 * 2**20)


@pytest.mark.parametrize("price", [0.1, "0.10", "1e-1"])
def test_a_price_is_exactly_what_was_written(price: object) -> None:
    told = read_heartbeat(body(price_info={"price": price, "unit": "hour"})).told
    assert told.asked == Asked(Fraction(1, 10), "hour")


def test_little_needs_to_be_said() -> None:
    told = read_heartbeat(b'{"runner_url":"http://127.0.0.1:9000","app":"a/b","capacity":0}').told
    assert (told.mode, told.capacity, told.asked.usd) == ("persistent", 1, Fraction(0))
    assert read_heartbeat(body(gpu=3)).told.gpu is not None
    assert not read_heartbeat(body(status="loading")).told.is_ready


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"runner_url": "ftp://127.0.0.1/x"}, "runner_url: write a whole address"),
        ({"runner_url": "http://me:secret@127.0.0.1:1"}, "runner_url: it must not hold a name"),
        ({"runner_url": "http://127.0.0.1:1/?a=1"}, "runner_url: it must end with its path"),
        ({"runner_url": "http://127.0.0.1:99999"}, "runner_url"),
        ({"runner_url": "http://" + "a" * 3000}, "runner_url"),
        ({"app": "two words"}, "app"),
        ({"app": "x" * 201}, "app"),
        ({"app": "<script>"}, "app"),
        ({"runner_id": "../x"}, "runner_id"),
        ({"runner_id": "x\n"}, "runner_id"),
        ({"capacity": 257}, "capacity"),
        ({"capacity": -1}, "capacity"),
        ({"capacity": True}, "capacity"),
        ({"mode": "batch"}, "mode"),
        ({"metadata": "ä" * 513}, "metadata: it is longer than 1024 bytes"),
        ({"label": "x" * 1025}, "label: it is longer than 1024 bytes"),
        ({"status": "\x1b[2J"}, "status"),
        ({"price_info": {"price": -1, "unit": "fixed"}}, "price_info.price: it must be from 0"),
        ({"price_info": {"price": "1e9999999", "unit": "fixed"}}, "price_info.price"),
        ({"price_info": {"price": "nan", "unit": "fixed"}}, "price_info.price"),
        ({"price_info": {"price": "sNaN", "unit": "fixed"}}, "price_info.price"),
        ({"price_info": {"price": "9" * 50, "unit": "fixed"}}, "price_info.price"),
        ({"price_info": {"price": True, "unit": "fixed"}}, "price_info.price"),
        ({"price_info": {"price": 1, "currency": "eur"}}, "price_info.currency"),
        ({"price_info": {"price": 1, "unit": "image"}}, "price_info.unit"),
        ({"gpu": {"vram_mb": 2**40}}, "gpu.vram_mb"),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_its_name(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(why)}"):
        read_heartbeat(body(**changes))


def test_a_price_next_to_nothing_is_nothing_and_costs_no_time() -> None:
    beat = read_heartbeat(body(price_info={"price": "1e-999999999", "unit": "fixed"}))
    assert beat.told.asked.usd == 0


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from([*GOOD, "runner_id"]), inner)
        ),
    ).map(
        lambda value: (
            orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_SUBCLASS) if not _big(value) else b""
        )
    )
)
def test_anything_else_is_a_value_error(sent: bytes) -> None:
    with suppress(ValueError):
        assert read_heartbeat(sent).told.app


def _big(value: object) -> bool:
    if isinstance(value, int):
        return abs(value) >= 2**63
    if isinstance(value, list):
        return any(map(_big, value))
    return isinstance(value, dict) and any(map(_big, value.values()))
