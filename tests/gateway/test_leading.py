"""Of two attempts the one that is ahead is shown, alone."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.dispatch.leading import Leading
from gateway.orchestrators.job_events import Advanced, News, Preview, Queued, StillThere

NEWS = st.one_of(
    st.builds(Queued, st.integers(1, 9)),
    st.builds(Advanced, st.integers(0, 20), st.just(20)),
    st.builds(Preview, st.integers(0, 3), st.integers(0, 20), st.just(b"")),
)


@given(st.lists(st.tuples(st.sampled_from("ab"), NEWS), max_size=60))
def test_two_are_never_mixed_and_nobody_who_is_behind_is_shown(
    told: list[tuple[str, News]],
) -> None:
    leading, done, shown = Leading(), {"a": 0, "b": 0}, ""
    for attempt_id, news in told:
        if isinstance(news, Advanced):
            done[attempt_id] = max(done[attempt_id], news.done)
        if not leading.tell(attempt_id, news):
            # What is kept back is of the other, which is not ahead.
            assert attempt_id != leading.leader
            assert done[attempt_id] <= done[leading.leader]
            continue
        assert attempt_id == leading.leader
        if shown not in {"", attempt_id}:
            assert done[attempt_id] > done[shown], "the lead passes to whoever is ahead only"
        shown = attempt_id


def test_when_the_leader_is_over_the_other_is_shown() -> None:
    leading = Leading()
    assert leading.tell("a", Advanced(9, 20))
    assert not leading.tell("b", Advanced(4, 20))
    assert not leading.tell("b", Preview(0, 4, b""))
    assert leading.tell("b", StillThere())
    leading.leave("a")
    assert leading.tell("b", Preview(0, 4, b""))
    leading.leave("b")
    assert leading.leader == ""
