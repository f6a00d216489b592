from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from typing_extensions import override

from network.units import JobId, ModelId
from node.jobs.board import (
    Board,
    Closing,
    Ended,
    Instruction,
    Policy,
    Reason,
    Refuse,
    SlotsChanged,
    Start,
    Submitted,
    Wait,
    WaitExpired,
)

SHAPES = ModelId("limner/shapes")
OTHER = ModelId("other/model")


def make_board(slots: int = 1, max_waiting: int = 2, max_wait: float = 10.0) -> Board:
    return Board({SHAPES: slots}, Policy(max_waiting, max_wait))


def submit(board: Board, name: str, seconds: float = 4.0, now: float = 0.0) -> Instruction:
    (instruction,) = board.handle(Submitted(JobId(name), SHAPES, seconds, now))
    return instruction


def test_a_job_starts_at_once_while_a_slot_is_free() -> None:
    board = make_board(slots=2)
    assert submit(board, "a") == Start(JobId("a"))
    assert submit(board, "b") == Start(JobId("b"))
    assert board.loads()[SHAPES].free == 0


def test_a_waiting_job_hears_its_position_its_estimate_and_its_bound() -> None:
    board = make_board()
    submit(board, "a", seconds=4.0, now=0.0)
    assert submit(board, "b", seconds=3.0, now=1.0) == Wait(JobId("b"), 1, 3.0, 11.0)
    assert submit(board, "c", seconds=1.0, now=2.0) == Wait(JobId("c"), 2, 5.0, 12.0)
    assert board.position(JobId("a")) == 0
    assert board.position(JobId("c")) == 2


def test_a_full_queue_refuses_and_says_so() -> None:
    board = make_board(max_waiting=1)
    submit(board, "a")
    submit(board, "b")
    assert submit(board, "c") == Refuse(JobId("c"), Reason.QUEUE_FULL)


def test_nobody_queues_for_longer_than_they_would_be_let_wait() -> None:
    board = make_board(max_wait=3.0)
    submit(board, "a", seconds=4.0)
    assert submit(board, "b") == Refuse(JobId("b"), Reason.WAIT_TOO_LONG)


def test_an_unknown_model_is_refused() -> None:
    board = make_board()
    assert board.handle(Submitted(JobId("a"), OTHER, 1.0, 0.0)) == (
        Refuse(JobId("a"), Reason.UNKNOWN_MODEL),
    )


def test_the_longest_waiting_job_takes_a_freed_slot() -> None:
    board = make_board()
    for name in "abc":
        submit(board, name)
    assert board.handle(Ended(JobId("a"), 4.0)) == (Start(JobId("b")),)
    assert board.handle(Ended(JobId("b"), 8.0)) == (Start(JobId("c")),)


def test_a_cancelled_waiting_job_leaves_the_queue_and_starts_nobody() -> None:
    board = make_board()
    for name in "abc":
        submit(board, name)
    assert board.handle(Ended(JobId("b"), 1.0)) == ()
    assert board.position(JobId("c")) == 1


def test_a_wait_that_expires_in_the_moment_of_the_start_changes_nothing() -> None:
    board = make_board()
    submit(board, "a")
    submit(board, "b")
    board.handle(Ended(JobId("a"), 1.0))
    assert board.handle(WaitExpired(JobId("b"))) == ()
    assert board.position(JobId("b")) == 0


def test_a_lost_engine_starts_nobody_until_it_is_back() -> None:
    board = make_board(slots=2)
    submit(board, "a")
    assert board.handle(SlotsChanged(SHAPES, 0, usable=True, now=1.0)) == ()
    assert isinstance(submit(board, "b"), Wait)
    assert board.handle(SlotsChanged(SHAPES, 2, usable=True, now=2.0)) == (Start(JobId("b")),)


def test_a_failed_model_sends_its_queue_elsewhere() -> None:
    board = make_board()
    submit(board, "a")
    submit(board, "b")
    assert board.handle(SlotsChanged(SHAPES, 0, usable=False, now=1.0)) == (
        Refuse(JobId("b"), Reason.MODEL_FAILED),
    )
    assert submit(board, "c") == Refuse(JobId("c"), Reason.MODEL_FAILED)


def test_a_closing_board_lets_the_running_finish_and_takes_nobody() -> None:
    board = make_board()
    submit(board, "a")
    submit(board, "b")
    assert board.handle(Closing()) == (Refuse(JobId("b"), Reason.CLOSING),)
    assert submit(board, "c") == Refuse(JobId("c"), Reason.CLOSING)
    assert board.handle(Ended(JobId("a"), 1.0)) == ()


class BoardMachine(RuleBasedStateMachine):
    """Drives a board at random and keeps its own books beside it."""

    @initialize(slots=st.integers(0, 3), max_waiting=st.integers(0, 3))
    def begin(self, slots: int, max_waiting: int) -> None:
        self.board = Board({SHAPES: slots}, Policy(max_waiting, 10.0))
        self.slots = slots
        self.now = 0.0
        self.count = 0
        self.running: list[JobId] = []
        self.waiting: list[JobId] = []
        self.over: set[JobId] = set()

    def carry_out(self, instructions: tuple[Instruction, ...]) -> None:
        for instruction in instructions:
            job_id = instruction.job_id
            assert job_id not in self.over, "a job ended twice"
            match instruction:
                case Start():
                    assert len(self.running) < self.slots, "started above the slots"
                    if job_id in self.waiting:
                        assert self.waiting[0] == job_id, "somebody was overtaken"
                        self.waiting.remove(job_id)
                    self.running.append(job_id)
                case Wait(position=position, until=until):
                    self.waiting.append(job_id)
                    assert position == len(self.waiting)
                    assert until >= self.now
                case Refuse():
                    if job_id in self.waiting:
                        self.waiting.remove(job_id)
                    self.over.add(job_id)

    @rule(model=st.sampled_from([SHAPES, SHAPES, OTHER]), seconds=st.floats(0, 8))
    def submit(self, model: ModelId, seconds: float) -> None:
        self.count += 1
        job_id = JobId(f"job-{self.count}")
        objection = self.board.objection(model, self.now)
        instructions = self.board.handle(Submitted(job_id, model, seconds, self.now))
        (first,) = instructions
        told = first.reason if isinstance(first, Refuse) else None
        assert told == objection, "what was foretold did not happen"
        self.carry_out(instructions)

    @rule(pick=st.integers(0, 5))
    def end(self, pick: int) -> None:
        jobs = [*self.running, *self.waiting]
        if not jobs:
            return
        job_id = jobs[pick % len(jobs)]
        for place in (self.running, self.waiting):
            if job_id in place:
                place.remove(job_id)
        self.over.add(job_id)
        self.carry_out(self.board.handle(Ended(job_id, self.now)))

    @rule(pick=st.integers(0, 5))
    def expire(self, pick: int) -> None:
        jobs = [*self.running, *self.waiting, *sorted(self.over)]
        if jobs:
            self.carry_out(self.board.handle(WaitExpired(jobs[pick % len(jobs)])))

    @rule(pick=st.integers(0, 5))
    def end_again(self, pick: int) -> None:
        if self.over:
            job_id = sorted(self.over)[pick % len(self.over)]
            assert self.board.handle(Ended(job_id, self.now)) == ()

    @rule(slots=st.integers(0, 3), usable=st.booleans())
    def change_slots(self, slots: int, usable: bool) -> None:  # noqa: FBT001  Hypothesis calls it
        self.slots = slots if usable else 0
        self.carry_out(
            self.board.handle(SlotsChanged(SHAPES, self.slots, usable=usable, now=self.now))
        )

    @rule(seconds=st.floats(0, 5))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def the_books_agree(self) -> None:
        self.board.validate()
        load = self.board.loads()[SHAPES]
        assert (load.running, load.waiting) == (len(self.running), len(self.waiting))

    @override
    def teardown(self) -> None:
        """Every job comes to its end once slots are there and jobs finish: nobody starves."""
        if not hasattr(self, "board"):
            return
        self.slots = 1
        self.carry_out(self.board.handle(SlotsChanged(SHAPES, 1, usable=True, now=self.now)))
        for _ in range(self.count + 1):
            if self.running:
                job_id = self.running.pop()
                self.over.add(job_id)
                self.carry_out(self.board.handle(Ended(job_id, self.now)))
        assert not self.waiting
        assert len(self.over) == self.count


TestBoardMachine = BoardMachine.TestCase
TestBoardMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
