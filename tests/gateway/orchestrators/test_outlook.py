"""What a client is told when nobody takes its request."""

from collections.abc import Sequence
from fractions import Fraction

from gateway.orchestrators import outlook
from gateway.orchestrators.selection import (
    FEMTOSECONDS,
    Need,
    Policy,
    Prospect,
    Ranking,
    Reason,
    Refusal,
    rank,
)
from network.units import ModelId, Pixels

NOW = 10.0


def ranking(*prospects: Prospect, cap: Fraction | None = None) -> Ranking:
    return rank(Need(ModelId("m"), Pixels(100), 10, cap), prospects, Policy(), NOW)


def one(uri: str = "https://o", **changes: object) -> Prospect:
    facts: dict[str, object] = {
        "price_numerator": 3,
        "price_denominator": 1,
        "free": 1,
        "pace": FEMTOSECONDS // 1000,
        "overhead": 0,
        "fresh_until": NOW,
    }
    return Prospect(uri=uri, **{**facts, **changes})  # type: ignore[arg-type]


def message(found: Ranking, failures: Sequence[str] = (), others: Sequence[Refusal] = ()) -> str:
    return outlook.nobody(found, failures, others).message


def test_waiting_helps_where_somebody_is_busy_or_has_not_named_a_price() -> None:
    assert outlook.may_pass(ranking(one(free=0)))
    assert outlook.may_pass(ranking(one(barred=Reason.UNPRICED)))
    assert not outlook.may_pass(ranking(one(suspended_until=NOW + 1)))
    assert not outlook.may_pass(ranking(one(), cap=Fraction(2)))


def test_the_time_to_return_grows_with_the_line_and_shrinks_with_the_places() -> None:
    busy = ranking(one(free=0), one("https://p", free=0, pace=FEMTOSECONDS // 100))
    assert outlook.retry_after(busy, jobs=1, ahead=0) == 1.0
    assert outlook.retry_after(busy, jobs=1, ahead=9) == 10.0
    assert outlook.retry_after(busy, jobs=2, ahead=9) == 5.0
    assert outlook.retry_after(busy, jobs=0, ahead=10_000) == 60.0
    problem = outlook.no_capacity(busy, 1, 9, 10.0)
    assert problem.headers["Retry-After"] == "10"
    assert "within 10 s" in problem.message


def test_the_four_reasons_are_four_codes() -> None:
    busy = ranking(one(free=0))
    dear = ranking(one(), cap=Fraction(2))
    problems = [
        outlook.no_capacity(busy, 1, 0, 1.0),
        outlook.nobody(dear, (), ()),
        outlook.nobody(ranking(), ("it answered 500: x",), ()),
        outlook.line_full(busy, 1, 1000),
    ]
    assert [problem.code for problem in problems] == [
        "no_capacity",
        "price_above_cap",
        "orchestrators_failed",
        "no_capacity",
    ]
    assert all(problem.status == 503 for problem in problems)
    assert all(int(problem.headers["Retry-After"]) >= 1 for problem in problems)


def test_the_reasons_are_told_in_words() -> None:
    paused = ranking(one(suspended_until=NOW + 5), one("https://p", fresh_until=NOW - 1))
    silent = Refusal("https://q", Reason.UNREACHABLE, "")
    assert message(paused, others=[silent]) == (
        "No orchestrator can take m now. Of those that offer it: 1 paused after failures, "
        "1 silent for too long. Of the others, 1 unreachable."
    )
    assert "there is no other: it sent a GIF." in message(paused, ["it sent a GIF"])


def test_what_is_said_when_nobody_ever_answered() -> None:
    assert "no orchestrators configured" in outlook.nobody_known(()).message
    silent = Refusal("https://q", Reason.UNREACHABLE, "no connection")
    assert outlook.nobody_known((silent,)).message.endswith("The last attempt: no connection.")
