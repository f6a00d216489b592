"""Counts of addresses: bounded, and forgotten by nobody's doing."""

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.access.crowd import Crowd

LIMIT = 10
#: Where there is no room, three at a time share a count.
IDS = [f"{number % 2 + 256 * number:024x}" for number in range(6)]
PAUSES = st.sampled_from([0.0, 0.0, 0.5, 5.0, 40.0, 61.0])
STEPS = st.lists(
    st.tuples(PAUSES, st.sampled_from(IDS), st.sampled_from([1, LIMIT // 2, LIMIT])),
    min_size=5,
    max_size=60,
)


def take(crowd: Crowd, client_id: str, amount: int, now: float) -> bool:
    bucket = crowd.bucket(client_id, "requests", LIMIT, now)
    if bucket.wait(amount, now) > 0:
        return False
    bucket.take(amount, now)
    return True


@settings(max_examples=200)
@given(most=st.integers(1, 4), steps=STEPS)
def test_no_address_ever_has_more_than_its_limit_whatever_the_others_do(
    most: int, steps: list[tuple[float, str, int]]
) -> None:
    crowd = Crowd(most)
    taken: dict[str, list[tuple[float, int]]] = defaultdict(list)
    now = 0.0
    for pause, client_id, amount in steps:
        now += pause
        if take(crowd, client_id, amount, now):
            taken[client_id].append((now, amount))
        assert len(crowd) <= most
    for uses in taken.values():
        for first, (begin, _) in enumerate(uses):
            for last in range(first, len(uses)):
                used = sum(amount for _, amount in uses[first : last + 1])
                assert used <= LIMIT + (uses[last][0] - begin) * LIMIT / 60 + 1e-6


@given(steps=STEPS)
def test_where_there_is_room_nobody_notices_the_others(
    steps: list[tuple[float, str, int]],
) -> None:
    crowd = Crowd(len(IDS))
    alone = {client_id: Crowd(1) for client_id in IDS}
    now = 0.0
    for pause, client_id, amount in steps:
        now += pause
        assert take(crowd, client_id, amount, now) == take(
            alone[client_id], client_id, amount, now
        )


def test_a_flood_of_addresses_pushes_nobodys_count_out() -> None:
    crowd = Crowd(100)
    assert take(crowd, IDS[0], LIMIT, 0.0)
    served = sum(take(crowd, f"{number:024x}", LIMIT, 0.1) for number in range(1, 50_000))
    assert len(crowd) == 100
    # Those with a count of their own, and one for each that is shared: no more, whatever their number.
    assert served == 99 + 256
    assert not take(crowd, IDS[0], 1, 0.1)
    assert take(crowd, IDS[0], 1, 7.0)


def test_whoever_was_away_for_a_minute_makes_room() -> None:
    crowd = Crowd(1)
    assert take(crowd, IDS[0], LIMIT, 0.0)
    assert take(crowd, IDS[1], LIMIT, 30.0)
    assert not take(crowd, IDS[1], LIMIT, 61.0), "what it used while it shared still counts"
    assert take(crowd, IDS[1], LIMIT, 121.0)
    assert len(crowd) == 1


def test_who_goes_on_asking_keeps_nobody_elses_entry_alive() -> None:
    crowd = Crowd(2)
    take(crowd, IDS[0], 1, 0.0)
    take(crowd, IDS[1], 1, 0.0)
    take(crowd, IDS[0], 1, 50.0)
    take(crowd, IDS[2], 1, 70.0)
    assert set(crowd._own) == {IDS[0], IDS[2]}
