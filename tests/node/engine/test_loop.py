"""The worker's step loop over a family made of nothing: turns, cancellation, failures, models."""

import itertools
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from typing_extensions import override

from network.units import JobId, ModelId
from node.engine.batch_book import BatchBook
from node.engine.batch_cap import BatchCap
from node.engine.canary import Canary
from node.engine.channel import Inbox
from node.engine.families.base import (
    Bounds,
    Checkpoint,
    InvalidJobError,
    Loras,
    SampleCancelledError,
)
from node.engine.families.folder import ModelFolderError
from node.engine.families.prompts import EncodedPrompt, TextEmbedding
from node.engine.finisher import Finisher
from node.engine.loop import DevicePoisonedError, Event, StepLoop
from node.engine.prompt_cache import PromptCache
from node.engine.protocol import (
    Cancel,
    Failed,
    FromWorker,
    ImageDone,
    Model,
    ModelChanged,
    Started,
    Stepped,
    Stop,
    Submit,
    Warned,
)
from node.engine.residency import Budget
from node.engine.shelf import Shelf
from node.engine.stopwatch import HostLap
from node.engine.thrift import Group
from node.engine.turn_log import TurnLog
from node.engine.turns import Turns
from node.engine.work import FailureKind, ImageJob, LoraSet, ModelFacts

_T = TypeVar("_T")


@dataclass(slots=True)
class _Sample:
    job: ImageJob
    seed: int
    done: int = 0
    key: Hashable = "same"

    @property
    def finished(self) -> bool:
        return self.done >= self.job.steps


@dataclass
class _Family:
    """Counts steps. A prompt that names an exception raises it at the second step."""

    alone: bool = False
    facts: ModelFacts = field(default_factory=ModelFacts)
    loras: Loras | None = None
    fits: int = 64  # samples in a step
    encoded: list[str] = field(default_factory=list)
    steps: list[tuple[JobId, int]] = field(default_factory=list)
    groups: list[list[tuple[JobId, int]]] = field(default_factory=list)
    after_step: Callable[[_Sample], None] = lambda _sample: None

    def prompt_key(self, job: ImageJob) -> bool:
        Bounds(self.facts).check(job)
        return job.guidance > 1

    def encode(self, job: ImageJob) -> str | EncodedPrompt:
        Bounds(self.facts).check(job)
        self.encoded.append(job.prompts[0])
        if job.prompts[0] == "long":
            return EncodedPrompt(TextEmbedding(None), warnings=("it was cut",))
        return job.prompts[0]

    def start(self, job: ImageJob, prompt: object, seed: int) -> _Sample:
        del prompt
        return _Sample(job, seed, key=(job.width, job.guidance > 1))

    def step(self, samples: Sequence[_Sample], checkpoint: Checkpoint) -> None:
        self.groups.append([(sample.job.job_id, sample.seed) for sample in samples])
        if len(samples) > self.fits:
            _raise("memory")
        for sample in samples:
            while not sample.finished:
                self.steps.append((sample.job.job_id, sample.seed))
                sample.done += 1
                self.after_step(sample)
                if sample.done > 1:
                    _raise(sample.job.prompts[0])
                if not self.alone:
                    break
                if not checkpoint(sample.done):
                    raise SampleCancelledError

    def decode(self, sample: _Sample) -> NDArray[np.uint8]:
        if sample.job.prompts[0] == "decode":
            raise RuntimeError("cannot decode")
        return np.full((8, 8, 3), sample.seed % 256, dtype=np.uint8)


@dataclass
class _Model:
    """A loaded model of one byte."""

    family: _Family
    size: int = 1

    def attach(self) -> _Family:
        return self.family

    def detach(self) -> None: ...

    def can_tile(self) -> bool:
        return False

    def tile(self, *, on: bool) -> None: ...

    def bring(self, group: Group) -> None: ...

    def send_away(self, group: Group) -> None: ...


def _raise(name: str) -> None:
    match name:
        case "memory":
            raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")
        case "poison":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        case "quote":
            raise RuntimeError("cannot do quote")
        case _:
            return


class _FixedCap(BatchCap):
    """Needs no measurements: as many as memory has held until now."""

    @override
    def choose(self, waiting: int) -> int:
        return max(1, min(waiting, self._ceiling()))


class _FixedBook(BatchBook):
    """One cap for everything."""

    def __init__(self, most: int) -> None:
        super().__init__(None, "none", most)
        self.only = _FixedCap(most)
        self.kinds: set[str] = set()

    @override
    def cap(self, kind: str) -> BatchCap:
        self.kinds.add(kind)
        return self.only


class _Bench:
    """A step loop whose messages are collected, run on the test's own thread."""

    def __init__(
        self, family: _Family, *, max_active: int = 16, max_models: int = 2, cap: int = 1
    ) -> None:
        self.family = family
        self.sent: list[FromWorker] = []
        self.inbox: Inbox[Event] = Inbox()
        self.cancelled: set[int] = set()
        self.opened: list[str] = []
        self.submitted: list[Submit] = []
        self.gone: set[int] = set()
        self.book = _FixedBook(cap)
        self.prompts = PromptCache(1000)
        self.turn_log = TurnLog()
        counter = itertools.count()

        def ticks() -> float:
            return float(next(counter))  # every step takes a second

        canary = Canary(time.monotonic)
        self.finisher = Finisher(
            send=self.send,
            deliver=self.inbox.put,
            cancelled=self.cancelled,
            canary=canary,
            longest=5.0,
        )
        models = [
            Model(name, f"/{name}", name == "warm", "auto") for name in ["warm", "a", "b", "c"]
        ]
        self.shelf = Shelf(
            [*models, Model("broken", "/broken", warm=True, dtype="auto")],
            budget=Budget(max_models),
            open_model=self._open,
            estimate=lambda model: 0 if model.model_id == "broken" else 1,
            rungs=(),
            forget_after=60.0,
            longest_load=5.0,
            longest_move=5.0,
            deliver=self.inbox.put,
            report=lambda state: self.send(ModelChanged(state)),
            canary=canary,
            monotonic=time.monotonic,
            relieve=lambda: None,
        )
        self.loop = StepLoop(
            inbox=self.inbox,
            cancelled=self.cancelled,
            send=self.send,
            shelf=self.shelf,
            finisher=self.finisher,
            canary=canary,
            turns=Turns(
                self.book, lambda: HostLap(ticks, ticks), self.shelf.pace, self.turn_log.note
            ),
            prompts=self.prompts,
            max_active_samples=max_active,
            longest_step=5.0,
            monotonic=time.monotonic,
            relieve=self._relieve,
            tidy_after=0.0,
        )
        self.finisher.start()

    def _open(self, model: Model, on_progress: Callable[[float], None]) -> _Model:
        on_progress(0.5)
        self.opened.append(model.model_id)
        if model.model_id == "broken":
            raise ModelFolderError("it is empty")
        return _Model(self.family)

    def _relieve(self) -> None:
        """Called when there is nothing left to do: end the run. Also when memory ran out."""
        loop = self.loop
        if not self.works_left() and not loop._finishing and not loop._active:
            self.inbox.put(Stop())

    def works_left(self) -> bool:
        asked = {m.ticket for m in self.submitted}
        ended = {m.ticket for m in self.of(Failed)} | self.gone
        delivered: dict[int, int] = {}
        for image in self.of(ImageDone):
            delivered[image.ticket] = delivered.get(image.ticket, 0) + 1
        ended |= {m.ticket for m in self.submitted if delivered.get(m.ticket) == len(m.wanted)}
        return bool(asked - ended)

    def run(self, *submits: Submit) -> None:
        self.submitted.extend(submits)
        for submit in submits:
            self.inbox.put(submit)
        self.loop.run()

    def cancel(self, ticket: int) -> None:
        """Do what the channel's reader does when a cancellation arrives."""
        self.gone.add(ticket)
        self.cancelled.add(ticket)
        self.inbox.put(Cancel(ticket))

    def send(self, message: FromWorker) -> None:
        self.sent.append(message)

    def of(self, kind: type[_T]) -> list[_T]:
        return [message for message in self.sent if isinstance(message, kind)]


@pytest.fixture
def family() -> _Family:
    return _Family()


def _submit(ticket: int, steps: int = 4, seeds: Sequence[int] = (1,), **changes: Any) -> Submit:
    job = ImageJob(
        JobId(f"job {ticket}"),
        ModelId(changes.get("model", "warm")),
        (changes.get("prompt", "a star"),),
        changes.get("side", 64),
        64,
        steps,
        changes.get("guidance", 7.5),
        tuple(seeds),
        deterministic=changes.get("deterministic", False),
    )
    return Submit(ticket, job, tuple(range(len(seeds))))


def test_every_image_of_every_job_is_delivered_once_with_its_own_seed(family: _Family) -> None:
    bench = _Bench(family, max_active=3)
    bench.run(_submit(1, seeds=(5, 6, 7)), _submit(2, steps=9), _submit(3, seeds=(8, 9)))
    images = [(image.ticket, image.index) for image in bench.of(ImageDone)]
    assert sorted(images) == [(1, 0), (1, 1), (1, 2), (2, 0), (3, 0), (3, 1)]
    assert [message.ticket for message in bench.of(Started)] == [1, 2, 3]
    assert not bench.of(Failed)
    assert not bench.cancelled


def test_only_the_wanted_images_are_made(family: _Family) -> None:
    bench = _Bench(family)
    whole = _submit(1, seeds=(5, 6, 7))
    bench.run(Submit(1, whole.job, (1,)))
    assert [image.index for image in bench.of(ImageDone)] == [1]
    assert {seed for _, seed in family.steps} == {6}


def test_what_a_family_warns_of_is_told_once_a_job(family: _Family) -> None:
    bench = _Bench(family)
    bench.run(_submit(1, prompt="long", seeds=(5, 6, 7)), _submit(2))
    assert bench.of(Warned) == [Warned(1, ("it was cut",))]
    assert len(bench.of(ImageDone)) == 4


def test_a_short_job_finishes_long_before_a_long_one_that_came_first(family: _Family) -> None:
    _Bench(family).run(_submit(1, steps=50), _submit(2, steps=3))
    jobs = [job for job, _ in family.steps]
    assert max(place for place, job in enumerate(jobs) if job == "job 2") <= 6


def test_a_cancelled_job_takes_no_further_step(family: _Family) -> None:
    bench = _Bench(family)

    def cancel_at_third(sample: _Sample) -> None:
        if sample.job.job_id == "job 1" and sample.done == 3:
            bench.cancel(1)

    family.after_step = cancel_at_third
    bench.run(_submit(1, steps=50, seeds=(1, 2)), _submit(2, steps=10))
    assert family.steps.count((JobId("job 1"), 1)) == 3
    assert (JobId("job 1"), 2) not in family.steps
    assert [image.ticket for image in bench.of(ImageDone)] == [2]
    assert not bench.cancelled


def test_a_job_that_runs_whole_stops_at_its_next_checkpoint() -> None:
    family = _Family(alone=True)
    bench = _Bench(family)
    family.after_step = lambda sample: bench.cancel(1) if sample.done == 2 else None
    bench.run(_submit(1, steps=50))
    assert len(family.steps) == 2
    assert not bench.of(ImageDone)


def test_a_job_cancelled_while_it_waits_never_starts(family: _Family) -> None:
    bench = _Bench(family, max_active=1)
    family.after_step = lambda sample: bench.cancel(2) if sample.done == 1 else None
    bench.run(_submit(1), _submit(2))
    assert [message.ticket for message in bench.of(Started)] == [1]
    assert [image.ticket for image in bench.of(ImageDone)] == [1]


def test_a_cancellation_that_comes_too_late_leaves_nothing_behind(family: _Family) -> None:
    bench = _Bench(family)
    bench.run(_submit(1))
    bench.cancel(1)
    bench.inbox.put(Stop())
    bench.loop.run()
    assert not bench.cancelled


@pytest.mark.parametrize(
    ("prompt", "kind", "message"),
    [
        ("memory", FailureKind.OUT_OF_MEMORY, "64x64 does not fit into the device's memory now."),
        ("quote", FailureKind.INTERNAL, "RuntimeError: cannot do <prompt>"),
        ("decode", FailureKind.INTERNAL, "RuntimeError: cannot <prompt>"),
    ],
)
def test_a_failure_ends_its_own_job_only_and_quotes_no_prompt(
    family: _Family, prompt: str, kind: FailureKind, message: str
) -> None:
    bench = _Bench(family)
    bench.run(_submit(1, prompt=prompt, seeds=(1, 2)), _submit(2))
    assert bench.of(Failed) == [Failed(1, kind, message)]
    assert [image.ticket for image in bench.of(ImageDone)] == [2]


def test_a_poisoned_device_ends_the_loop(family: _Family) -> None:
    bench = _Bench(family)
    with pytest.raises(DevicePoisonedError):
        bench.run(_submit(1, prompt="poison"))
    assert [failed.ticket for failed in bench.of(Failed)] == [1]


def test_what_the_model_cannot_do_is_the_requests_fault(family: _Family) -> None:
    bench = _Bench(family)
    good = _submit(1).job
    faults = {
        1: ImageJob(good.job_id, good.model_id, good.prompts, 60, 64, 4, 7.5, (1,)),
        2: ImageJob(good.job_id, good.model_id, good.prompts, 64, 64, 4, float("nan"), (1,)),
        3: ImageJob(good.job_id, good.model_id, ("a", "b"), 64, 64, 4, 7.5, (1,)),
        4: ImageJob(
            good.job_id, good.model_id, ("a",), 64, 64, 4, 7.5, (1,), loras=(("ink", 1.0),)
        ),
        5: ImageJob(good.job_id, good.model_id, ("a",), 64, 64, 0, 7.5, (1,)),
    }
    bench.run(*(Submit(ticket, job, (0,)) for ticket, job in faults.items()))
    messages = {failed.ticket: failed.message for failed in bench.of(Failed)}
    assert {failed.kind for failed in bench.of(Failed)} == {FailureKind.INVALID}
    assert messages[1] == "width must be a multiple of 8 for this model; it is 60."
    assert "guidance" in messages[2]
    assert "1 prompt part " in messages[3]
    assert "ink" in messages[4]
    assert "step" in messages[5]
    assert not family.steps


class _Loras:
    """Knows one LoRA less than jobs ask for."""

    def __init__(self) -> None:
        self.active: LoraSet = ()

    def holds(self, name: str) -> bool:
        return name != "unknown"

    def prepare(self, name: str) -> None:
        if not self.holds(name):
            raise InvalidJobError(f"there is no {name}")

    def activate(self, loras: LoraSet) -> None:
        for name, _ in loras:
            self.prepare(name)
        self.active = loras


def test_every_step_has_its_jobs_loras_and_one_that_cannot_fails_alone(family: _Family) -> None:
    loras = _Loras()
    family.loras, family.facts = loras, ModelFacts(max_loras=4)
    seen: list[tuple[LoraSet, LoraSet]] = []
    family.after_step = lambda sample: seen.append((sample.job.lora_set, loras.active))
    sets: list[LoraSet] = [(), (("a", 1.0),), (("unknown", 1.0),), (("a", 0.5), ("b", 1.0)), ()]
    bench = _Bench(family, cap=4)
    bench.run(
        *(
            Submit(ticket, replace(_submit(ticket).job, loras=wanted), (0,))
            for ticket, wanted in enumerate(sets, start=1)
        )
    )
    (failed,) = bench.of(Failed)
    assert (failed.ticket, failed.kind) == (3, FailureKind.INVALID)
    assert failed.message == "there is no unknown"
    assert {image.ticket for image in bench.of(ImageDone)} == {1, 2, 4, 5}
    assert {wanted for wanted, _ in seen} == {sets[0], sets[1], sets[3]}
    assert all(wanted == active for wanted, active in seen)
    assert sorted({len(group) for group in family.groups}) == [1, 2], "equal sets share steps"


def _turns_of(family: _Family, job: str) -> list[list[tuple[JobId, int]]]:
    return [group for group in family.groups if any(name == job for name, _ in group)]


def test_jobs_of_different_steps_guidance_and_seeds_share_their_steps(family: _Family) -> None:
    bench = _Bench(family, cap=8)
    bench.run(_submit(1, steps=6, guidance=3.0), _submit(2, steps=4), _submit(3, seeds=(8, 9)))
    assert sorted(len(group) for group in family.groups) == [1, 1, 4, 4, 4, 4]
    assert len(bench.of(ImageDone)) == 4


def test_what_cannot_share_a_step_does_not(family: _Family) -> None:
    bench = _Bench(family, cap=8)
    jobs = [_submit(1), _submit(2, side=128), _submit(3, guidance=1.0), _submit(4, model="a")]
    bench.run(*jobs)
    assert {len(group) for group in family.groups} == {1}
    assert len(bench.of(ImageDone)) == 4
    assert len(bench.book.kinds) == 4


def test_a_deterministic_jobs_images_step_one_by_one_whatever_else_is_there(
    family: _Family,
) -> None:
    bench = _Bench(family, cap=8)
    bench.run(_submit(1), _submit(2, seeds=(2, 3), deterministic=True), _submit(3))
    assert {len(group) for group in _turns_of(family, "job 2")} == {1}
    assert {len(group) for group in _turns_of(family, "job 1")} == {2}
    assert len(bench.of(ImageDone)) == 4


def test_a_jobs_images_start_together_however_many_are_under_way(family: _Family) -> None:
    bench = _Bench(family, max_active=4, cap=8)
    bench.run(_submit(1, seeds=(1, 2, 3)), _submit(2, seeds=(4, 5)), _submit(3, seeds=range(6)))
    together = [len(group) for group in family.groups]
    assert together == [3] * 4 + [2] * 4 + [6] * 4
    assert len(bench.of(ImageDone)) == 11


def test_a_job_joins_those_under_way_at_the_next_step(family: _Family) -> None:
    bench = _Bench(family, cap=8)
    late = _submit(2, steps=3)
    bench.submitted.append(late)

    def join(sample: _Sample) -> None:
        if sample.job.job_id == "job 1" and sample.done == 5:
            bench.inbox.put(late)

    family.after_step = join
    bench.run(_submit(1, steps=12))
    assert [len(group) for group in family.groups] == [1] * 5 + [2] * 3 + [1] * 4


def test_cancelling_one_member_of_a_batch_leaves_its_neighbours_alone(family: _Family) -> None:
    bench = _Bench(family, cap=8)

    def cancel_at_third(sample: _Sample) -> None:
        if sample.job.job_id == "job 2" and sample.done == 3:
            bench.cancel(2)

    family.after_step = cancel_at_third
    bench.run(_submit(1, steps=7), _submit(2, steps=50, seeds=(4, 5)), _submit(3, steps=7))
    assert [len(group) for group in family.groups] == [4] * 3 + [2] * 4
    assert [image.ticket for image in bench.of(ImageDone)] == [1, 3]
    assert not bench.of(Failed)
    assert not bench.cancelled


def test_a_group_that_does_not_fit_into_memory_is_halved_and_no_job_fails(
    family: _Family,
) -> None:
    family.fits = 2
    bench = _Bench(family, cap=8)
    bench.run(*(_submit(ticket, steps=3) for ticket in range(1, 9)))
    assert [len(group) for group in family.groups[:2]] == [8, 4]
    assert {len(group) for group in family.groups[2:]} == {2}
    assert len(bench.of(ImageDone)) == 8
    assert not bench.of(Failed)
    assert bench.book.only.limit == 3


def test_memory_that_holds_not_even_one_sample_fails_that_job(family: _Family) -> None:
    family.fits = 0
    bench = _Bench(family, cap=8)
    bench.run(_submit(1, seeds=(1, 2, 3)), _submit(2))
    assert {(m.ticket, m.kind) for m in bench.of(Failed)} == {
        (1, FailureKind.OUT_OF_MEMORY),
        (2, FailureKind.OUT_OF_MEMORY),
    }


def test_a_members_fault_is_not_its_neighbours(family: _Family) -> None:
    bench = _Bench(family, cap=8)
    bench.run(_submit(1), _submit(2, prompt="quote", seeds=(1, 2)), _submit(3))
    assert [failed.ticket for failed in bench.of(Failed)] == [2]
    assert sorted(image.ticket for image in bench.of(ImageDone)) == [1, 3]


def test_a_prompt_is_encoded_once_and_a_job_is_checked_all_the_same(family: _Family) -> None:
    bench = _Bench(family)
    bench.run(_submit(1, seeds=(1, 2)), _submit(2), _submit(3, guidance=2.0))
    assert family.encoded == ["a star"]
    bench.run(_submit(4, guidance=1.0), _submit(5, model="a"), _submit(6, prompt="a sun"))
    # Model "a" is loaded first, and its job takes its turn when that is done.
    assert sorted(family.encoded) == ["a star", "a star", "a star", "a sun"]
    bench.run(_submit(7, side=60))
    assert [(m.ticket, m.kind) for m in bench.of(Failed)] == [(7, FailureKind.INVALID)]


@dataclass(frozen=True, slots=True)
class _Fate:
    """A job in the test below; it is cancelled after so many of its steps."""

    steps: int
    images: int
    prompt: str
    cancel_at: int | None
    deterministic: bool


_fates = st.builds(
    _Fate,
    steps=st.integers(1, 6),
    images=st.integers(1, 3),
    prompt=st.sampled_from(["a star", "a star", "quote", "decode", "memory"]),
    cancel_at=st.none() | st.integers(1, 4),
    deterministic=st.booleans(),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(_fates, min_size=1, max_size=8), st.integers(1, 6), st.integers(1, 6))
@example([_Fate(2, 2, "memory", cancel_at=2, deterministic=False)], 2, 2)
def test_every_job_ends_exactly_once_whatever_happens_to_it(
    fates: list[_Fate], cap: int, fits: int
) -> None:
    family = _Family(fits=fits)
    bench = _Bench(family, max_active=6, cap=cap)

    def cancel(sample: _Sample) -> None:
        ticket = int(sample.job.job_id.removeprefix("job "))
        if sample.done == fates[ticket].cancel_at and ticket not in bench.gone:
            bench.cancel(ticket)

    family.after_step = cancel
    bench.run(
        *(
            _submit(
                ticket,
                fate.steps,
                range(fate.images),
                prompt=fate.prompt,
                deterministic=fate.deterministic,
            )
            for ticket, fate in enumerate(fates)
        )
    )
    failed = [message.ticket for message in bench.of(Failed)]
    images = [(message.ticket, message.index) for message in bench.of(ImageDone)]
    assert len(set(failed)) == len(failed)
    assert len(set(images)) == len(images)
    for ticket, fate in enumerate(fates):
        if ticket in bench.gone:
            continue
        whole = {(ticket, index) for index in range(fate.images)} <= set(images)
        assert whole != (ticket in failed)
    assert not bench.loop._works
    assert not bench.loop._active
    assert not bench.cancelled


def test_progress_grows_to_the_last_step_and_is_not_told_at_every_one(family: _Family) -> None:
    bench = _Bench(family)
    bench.run(_submit(1, steps=2000))
    told = [stepped.done for stepped in bench.of(Stepped)]
    assert told == sorted(set(told))
    assert told[-1] == 2000
    assert len(told) < 500


def test_models_load_on_demand_and_the_least_recently_used_goes(family: _Family) -> None:
    bench = _Bench(family, max_models=2)
    names = ["warm", "a", "b", "a", "warm", "c"]
    for ticket, name in enumerate(names, start=1):
        bench.run(_submit(ticket, model=name))
    # The broken one is tried on the side, when nothing more urgent is to be loaded.
    assert [name for name in bench.opened if name != "broken"] == ["warm", "a", "b", "a", "c"]
    last = {message.state.model_id: message.state for message in bench.of(ModelChanged)}
    assert {name: last[ModelId(name)].status for name in ("warm", "a", "b", "c", "broken")} == {
        "warm": "ready",
        "a": "cold",
        "b": "cold",
        "c": "ready",
        "broken": "failed",
    }
    assert last[ModelId("warm")].pace is not None


def test_a_model_that_cannot_be_loaded_fails_its_jobs_with_the_reason(family: _Family) -> None:
    bench = _Bench(family)
    bench.run(_submit(1, model="broken"), _submit(2))
    (failed,) = bench.of(Failed)
    assert (failed.ticket, failed.kind) == (1, FailureKind.INTERNAL)
    assert "it is empty" in failed.message


def test_every_step_of_every_image_is_offered_for_a_preview(family: _Family) -> None:
    offered: list[tuple[int, int, int]] = []
    bench = _Bench(family)
    bench.loop._preview = lambda ticket, index, _job, _family, sample: offered.append(
        (ticket, index, sample.done)
    )
    bench.run(_submit(1, steps=3, seeds=(5, 6)), _submit(2, steps=2))
    assert sorted(offered) == [
        *((1, index, step) for index in (0, 1) for step in (1, 2, 3)),
        (2, 0, 1),
        (2, 0, 2),
    ]


def test_a_job_that_runs_whole_is_offered_at_its_checkpoints() -> None:
    offered: list[int] = []
    bench = _Bench(_Family(alone=True))
    bench.loop._preview = lambda *moment: offered.append(moment[-1].done)
    bench.run(_submit(1, steps=3))
    assert offered[:3] == [1, 2, 3]


def test_steps_are_counted_with_their_size_and_time(family: _Family) -> None:
    bench = _Bench(family)
    bench.run(_submit(1, steps=3, seeds=(5, 6)), _submit(2, steps=2))
    batches, seconds = bench.turn_log.take()
    assert sum(size * count for size, count in batches.items()) == 8
    assert seconds > 0
    assert bench.turn_log.take() == ({}, 0.0)
