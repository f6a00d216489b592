"""The engine as the rest of the node sees it, and the way to open one. Nothing here loads torch."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from network.runtime.clock import Clock
from network.runtime.supervisor import supervise
from network.units import JobId, ModelId
from node.engine.launch import worker_command
from node.engine.options import EngineOptions
from node.engine.process import ProcessEngine
from node.engine.work import (
    ImageJob,
    ImageResult,
    LoraSpec,
    ModelSpec,
    ModelState,
    Preview,
    Progress,
    SafetyState,
    Tally,
)


class Engine(Protocol):
    """Makes images. Its methods belong to one event loop and none of them blocks it."""

    def models(self) -> tuple[ModelState, ...]:
        """Return every configured model's state, from memory, in the configured order."""

    def model(self, model_id: ModelId) -> ModelState | None:
        """Return one model's state; None when it is not configured."""

    def healthy(self) -> bool:
        """Tell whether a worker is up and beating, so that a job given now would be taken up."""

    def tally(self) -> Tally:
        """Return what became of all images asked for since the engine was opened."""

    def safety(self) -> SafetyState:
        """Return the safety checker's state, from memory. A failed one makes it unhealthy."""

    def resident_bytes(self) -> int:
        """Return the worker's resident memory as of its last heartbeat; 0 while there is none."""

    def worker_pid(self) -> int | None:
        """Return the present worker's process id; None while there is none."""

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` after any change of health or model states; returns the way to stop."""

    def watch(self, job_id: JobId, on_preview: Callable[[Preview], None]) -> Callable[[], None]:
        """Show a job's images while they are made; returns the way to stop.

        The job may come later, and its end ends nothing here. Previews cost nothing where nobody
        watches. `on_preview` is called on the event loop.
        """

    async def generate(
        self, job: ImageJob, on_progress: Callable[[Progress], None]
    ) -> ImageResult:
        """Make a job's images, all or none.

        Cancelling the awaiting task takes the job off its queue, or ends it at the next denoise
        step. Raises EngineBusyError or JobFailedError. `on_progress` is called on the event loop;
        after a worker's crash the count starts again from zero.
        """


@asynccontextmanager
async def open_process_engine(
    specs: Sequence[ModelSpec],
    *,
    device: str = "auto",
    clock: Clock,
    options: EngineOptions | None = None,
    command: Sequence[str] | None = None,
    loras: Sequence[LoraSpec] = (),
) -> AsyncIterator[Engine]:
    """Start a worker process for `device` ("auto", "cpu", "cuda", "cuda:1") and keep it running.

    Yields at once: models load in the background, `Engine.models()` tells how far they are, and
    jobs given meanwhile wait. Leaving the context cancels every job and ends the worker.
    `command` stands in for the worker's own command line; `loras` are those that jobs may name.
    """
    chosen = options or EngineOptions()
    engine = ProcessEngine(specs, device, clock, chosen, command or worker_command(), loras=loras)
    async with supervise(clock) as supervisor:
        supervisor.start("engine", engine.run)
        try:
            yield engine
        finally:
            engine.close()
