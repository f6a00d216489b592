"""Looks at jobs that are not under way are bounded, for each key."""

import pytest

from gateway.api import looks
from gateway.api.looks import PER_MINUTE, Looks
from network.errors import ProblemError
from tests.gateway.api.surface import Surface


def test_each_key_may_look_so_often_and_again_after_a_while() -> None:
    own = Looks()
    for _ in range(PER_MINUTE):
        own.take("k", 0.0)
    own.take("other", 0.0)
    with pytest.raises(ProblemError) as caught:
        own.take("k", 0.0)
    assert caught.value.problem.status == 429
    assert caught.value.problem.headers["Retry-After"] == "1"
    # Whoever polls a few jobs every second never meets the bound.
    for second in range(1, 120):
        for _ in range(PER_MINUTE // 60):
            own.take("k", float(second))


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "_MOST", 3)
    own = Looks()
    for number in range(10):
        own.take(str(number), 0.0)
    assert len(own) == 3


async def test_an_unknown_job_costs_a_look_and_one_under_way_none(
    surface: Surface, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "PER_MINUTE", 3)

    async def status(key: str) -> int:
        headers = {"Authorization": f"Bearer {key}"}
        async with surface.client.get(f"{surface.url}/jobs/{'a' * 32}", headers=headers) as one:
            return one.status

    assert [await status("good") for _ in range(4)] == [404, 404, 404, 429]
    assert await status("other") == 404
