"""What outlives the process: whole, bounded, private, and no reason not to start."""

import asyncio
import json
import os
import stat
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from gateway.discovery import memory
from gateway.discovery.listing import Admitted, Claim, Rules, admit
from gateway.discovery.memory import NOTHING, Known, Memory, _content, _known
from gateway.orchestrators.offer import ModelOffer, Offer
from network.capabilities import ModelConstraint, node_capabilities
from network.units import Address, ModelId
from network.wire.codec import AuthToken

ALICE, BOB = Address(b"\x01" * 20), Address(b"\x02" * 20)
NOW, MONOTONIC = 1_800_000_000.0, 5000.0

prices = st.none() | st.fractions(0, 2**40, max_denominator=2**20)
names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=20)


def offer(uri: str, models: dict[str, Fraction | None], age: float = 0.0) -> Offer:
    listed = {name: ModelConstraint(warm=True, capacity=2) for name in models}
    return Offer(
        uri=uri,
        transcoder=f"{uri}/jobs",
        address=ALICE,
        models=MappingProxyType(
            {ModelId(name): ModelOffer(warm=True, free=2, price=p) for name, p in models.items()}
        ),
        capabilities=node_capabilities(listed, "0.9.1"),
        auth_token=AuthToken(b"secret-token", "session", 1_900_000_000),
        version="0.9.1",
        refreshed_at=MONOTONIC - age,
        round_trip=0.02,
    )


def without_session(one: Offer, refreshed_at: float) -> Offer:
    """The offer as it is known afterwards."""
    return replace(one, auth_token=None, is_remembered=True, refreshed_at=refreshed_at)


@given(st.dictionaries(names, prices, min_size=1, max_size=4))
def test_prices_and_models_come_back_exactly_and_secrets_do_not(
    models: dict[str, Fraction | None],
) -> None:
    kept = offer("https://one.example:8935", models, age=30.0)
    content = _content({}, [kept], NOW, MONOTONIC)
    assert b"secret-token" not in content
    # Ten seconds later, in a process whose clock began anew.
    found = _known(content, NOW + 10, 100.0).offers
    assert [replace(one, refreshed_at=0.0) for one in found] == [without_session(kept, 0.0)]
    assert found[0].refreshed_at == pytest.approx(100.0 - 40.0)


async def test_lists_come_back_with_the_accounts_registered(tmp_path: Path) -> None:
    uris = {"https://a:1": frozenset({ALICE, BOB}), "https://b:1": None}
    store = Memory(tmp_path / "known.json")
    await store.save({"chain 1f": Admitted(uris)}, [], NOW, MONOTONIC)
    known = await store.load(NOW, MONOTONIC)
    assert known.lists["chain 1f"] == [
        Claim("https://a:1", ALICE),
        Claim("https://a:1", BOB),
        Claim("https://b:1"),
    ]
    assert admit(known.lists["chain 1f"], Rules(), allow_private=True).accounts == uris
    assert stat.S_IMODE((tmp_path / "known.json").stat().st_mode) == 0o600
    assert {name for _, _, names in os.walk(tmp_path) for name in names} == {"known.json"}


async def loaded(path: Path) -> tuple[Known, list[str]]:
    with capture_logs() as logs:
        known = await Memory(path).load(NOW, MONOTONIC)
    return known, [line["event"] for line in logs]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"[" * 100_000,
        b'{"version": 2, "lists": {}, "offers": []}',
        b'{"version": 1, "lists": {"chain": [["https://a", ["0x12"]]]}, "offers": []}',
        b'{"version":1,"lists":{},"offers":[{"uri":"u","seen_at":1799999999,"round_trip":0,"info":"//8="}]}',
    ],
)
async def test_a_file_that_was_not_written_by_us_is_ignored(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "known.json"
    path.write_bytes(content)
    assert await loaded(path) == (NOTHING, ["remembered_orchestrators_ignored"])


async def test_no_file_is_no_news_and_a_huge_one_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "known.json"
    assert await loaded(path) == (NOTHING, [])
    monkeypatch.setattr(memory, "_LARGEST_FILE", 100)
    path.write_bytes(b" " * 101)
    assert await loaded(path) == (NOTHING, ["remembered_orchestrators_ignored"])


async def test_every_cut_of_the_file_is_ignored_and_no_error(tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    one = offer("https://one.example:8935", {"m": Fraction(1, 3)})
    content = _content({"webhook": Admitted({one.uri: None})}, [one], NOW, MONOTONIC)
    for end in range(0, len(content), 7):
        path.write_bytes(content[:end])
        assert (await loaded(path))[0] == NOTHING


def test_what_is_too_much_or_too_old_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    offers = [offer(f"https://{n}.example", {"m": Fraction(n)}, age=n) for n in range(1, 6)]
    size = len(_content({}, offers[:1], NOW, MONOTONIC))
    monkeypatch.setattr(memory, "_LARGEST_OFFERS", size)
    known = _known(_content({}, offers, NOW, MONOTONIC), NOW, MONOTONIC)
    assert known.offers
    assert [one.uri for one in known.offers] == [one.uri for one in offers[: len(known.offers)]]
    assert len(known.offers) < len(offers)
    assert not _known(_content({}, offers, NOW, MONOTONIC), NOW + 8 * 86_400, MONOTONIC).offers
    # A clock that was set back: nobody has seen the future.
    assert not _known(_content({}, offers, NOW, MONOTONIC), NOW - 3600, MONOTONIC).offers


async def test_a_disk_that_refuses_is_told_of_once(tmp_path: Path) -> None:
    store = Memory(tmp_path / "gone" / "known.json")
    with capture_logs() as logs:
        await store.save({}, [], NOW, MONOTONIC)
        await store.save({}, [], NOW, MONOTONIC)
    assert [line["event"] for line in logs] == ["orchestrators_not_remembered"]


async def test_two_writers_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    stores = [Memory(path), Memory(path)]
    lists = {"webhook": Admitted(dict.fromkeys((f"https://{n}:1" for n in range(500)), None))}
    await asyncio.gather(*(s.save(lists, [], NOW, MONOTONIC) for s in stores for _ in range(5)))
    assert len(json.loads(path.read_bytes())["lists"]["webhook"]) == 500
