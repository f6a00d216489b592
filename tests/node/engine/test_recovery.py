"""What becomes of jobs when workers die: nothing is lost, and only the guilty is convicted."""

from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from typing_extensions import override

from node.engine.recovery import Standing, after_crash, to_send

_ATTEMPTS = 2


class Recovery(RuleBasedStateMachine):
    """Jobs come, run and end while workers die at any moment; some jobs kill their worker."""

    @initialize()
    def begin(self) -> None:
        self.jobs: dict[int, Standing] = {}
        self.killers: set[int] = set()
        self.ended: dict[int, str] = {}
        self.tickets = 0
        self.deaths_while_running: dict[int, int] = {}

    @rule(killer=st.booleans())
    def submit(self, killer: bool) -> None:  # noqa: FBT001  Hypothesis passes by name
        self.tickets += 1
        self.jobs[self.tickets] = Standing(self.tickets)
        if killer:
            self.killers.add(self.tickets)

    @rule()
    def send(self) -> None:
        for ticket in to_send(tuple(self.jobs.values())):
            assert not self.jobs[ticket].sent
            self.jobs[ticket] = replace(self.jobs[ticket], sent=True)

    @rule(data=st.data())
    @precondition(lambda self: any(job.sent and not job.running for job in self.jobs.values()))
    def start(self, data: st.DataObject) -> None:
        ready = [job.ticket for job in self.jobs.values() if job.sent and not job.running]
        ticket = data.draw(st.sampled_from(ready))
        self.jobs[ticket] = replace(self.jobs[ticket], running=True)

    @rule(data=st.data())
    @precondition(lambda self: self._running())
    def finish(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self._running()))
        if ticket not in self.killers:
            self._end(ticket, "done")

    @rule()
    @precondition(lambda self: any(ticket in self.killers for ticket in self._running()))
    def die(self) -> None:
        running = self._running()
        aftermath = after_crash(tuple(self.jobs.values()), _ATTEMPTS)
        assert set(aftermath.convicted) | set(aftermath.suspected) == set(running)
        for ticket in aftermath.convicted:
            assert ticket in self.killers, "an innocent job was convicted"
            self._end(ticket, "failed")
        for ticket, job in self.jobs.items():
            crashes = job.crashes + (ticket in aftermath.suspected)
            self.jobs[ticket] = Standing(ticket, crashes=crashes)

    @rule(data=st.data())
    @precondition(lambda self: self.jobs)
    def cancel(self, data: st.DataObject) -> None:
        self._end(data.draw(st.sampled_from(sorted(self.jobs))), "cancelled")

    @invariant()
    def every_job_is_here_or_has_ended(self) -> None:
        assert len(self.jobs) + len(self.ended) == self.tickets
        assert not set(self.jobs) & set(self.ended)

    @invariant()
    def a_suspect_runs_alone(self) -> None:
        running = self._running()
        if any(self.jobs[ticket].crashes for ticket in running):
            assert len(running) == 1

    @invariant()
    def something_can_always_go_on(self) -> None:
        jobs = tuple(self.jobs.values())
        assert not jobs or any(job.sent for job in jobs) or to_send(jobs)

    @override
    def teardown(self) -> None:
        """Let everything run to its end: killers fail, all others are done."""
        if not hasattr(self, "jobs"):
            return
        for _ in range(8 * len(self.jobs) + 8):
            self.send()
            ready = [job.ticket for job in self.jobs.values() if job.sent]
            for ticket in ready:
                self.jobs[ticket] = replace(self.jobs[ticket], running=True)
            if any(ticket in self.killers for ticket in ready):
                self.die()
            else:
                for ticket in ready:
                    self._end(ticket, "done")
        assert not self.jobs
        for ticket, how in self.ended.items():
            assert how == "cancelled" or (how == "failed") == (ticket in self.killers)

    def _running(self) -> list[int]:
        return [ticket for ticket, job in self.jobs.items() if job.running]

    def _end(self, ticket: int, how: str) -> None:
        assert ticket not in self.ended
        del self.jobs[ticket]
        self.ended[ticket] = how


TestRecovery = Recovery.TestCase
