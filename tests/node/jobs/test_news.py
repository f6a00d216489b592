"""The mailbox of a job's watcher: the newest of each kind, never more, the end last."""

import asyncio

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from network.units import JobId
from node.accounting.model import Ending, Outcome
from node.engine.work import Preview
from node.jobs.news import Advanced, Fate, Mailbox, News, Over, Queued

_IMAGES = 3


class MailboxMachine(RuleBasedStateMachine):
    """Against a plain list of all that was put."""

    def __init__(self) -> None:
        super().__init__()
        self.mailbox = Mailbox()
        self.untaken: list[News] = []
        self.over = False

    def put(self, news: News) -> None:
        self.mailbox.put(news)
        if not self.over:
            self.untaken.append(news)

    @rule(position=st.integers(1, 5))
    def queued(self, position: int) -> None:
        self.put(Queued(position))

    @rule(done=st.integers(0, 20))
    def advanced(self, done: int) -> None:
        self.put(Advanced(done, 20))

    @rule(index=st.integers(0, _IMAGES - 1), step=st.integers(1, 20))
    def preview(self, index: int, step: int) -> None:
        self.put(Preview(JobId("j"), index, step, bytes([step])))

    @rule(fate=st.sampled_from(Fate))
    def end(self, fate: Fate) -> None:
        self.put(Over(fate))
        self.over = True

    @rule()
    def take(self) -> None:
        taken = self.mailbox.take()
        assert len(taken) <= 3 + _IMAGES
        newest: dict[object, News] = {}
        for news in self.untaken:
            kind = (type(news), news.index if isinstance(news, Preview) else 0)
            newest[kind] = news
        # A place in line that did not change is no news.
        assert set(taken) - set(newest.values()) == set()
        missing = set(newest.values()) - set(taken)
        assert all(isinstance(news, Queued) for news in missing)
        if any(isinstance(news, Over) for news in self.untaken):
            assert isinstance(taken[-1], Over)
        self.untaken = []

    @invariant()
    def is_filled_exactly_when_there_is_something(self) -> None:
        filled = self.mailbox._filled.is_set()
        assert not filled or self.untaken
        assert filled or all(isinstance(news, Queued) for news in self.untaken)


TestMailbox = MailboxMachine.TestCase


def test_nothing_comes_after_the_end_and_an_unchanged_place_is_no_news() -> None:
    mailbox = Mailbox()
    mailbox.put(Queued(2))
    assert mailbox.take() == (Queued(2),)
    mailbox.put(Queued(2))
    assert mailbox.take() == ()
    mailbox.put(Queued(1))
    mailbox.put(Over(Fate.DONE))
    mailbox.put(Advanced(1, 2))
    mailbox.put(Over(Fate.FAILED))
    assert mailbox.take() == (Queued(1), Over(Fate.DONE))
    assert mailbox.take() == ()


async def test_a_reader_who_waits_is_woken() -> None:
    mailbox = Mailbox()
    waiting = asyncio.ensure_future(mailbox.filled())
    await asyncio.sleep(0)
    assert not waiting.done()
    mailbox.put(Advanced(1, 2))
    await asyncio.wait_for(waiting, 5)
    assert mailbox.take() == (Advanced(1, 2),)


@pytest.mark.parametrize(
    ("ending", "over"),
    [
        (Ending(Outcome.DELIVERED), Over(Fate.DONE)),
        (Ending(Outcome.CANCELLED), Over(Fate.CANCELLED)),
        (Ending(Outcome.INTERRUPTED), Over(Fate.FAILED, "closing")),
        (Ending(Outcome.REFUSED, "waited_in_vain"), Over(Fate.FAILED, "waited_in_vain")),
        (Ending(Outcome.FAILED, "out_of_memory"), Over(Fate.FAILED, "out_of_memory")),
    ],
)
def test_every_outcome_has_a_fate(ending: Ending, over: Over) -> None:
    assert Over.of(ending) == over
