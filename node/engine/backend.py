"""The engine as the rest of the node sees it, and the way to open one. Nothing here loads torch."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from network.runtime.clock import Clock
from network.units import ModelId
from node.engine.work import ImageJob, ImageResult, ModelSpec, ModelState, Progress


class Engine(Protocol):
    """Makes images. Its methods belong to one event loop and none of them blocks it."""

    def models(self) -> tuple[ModelState, ...]:
        """Return every configured model's state, from memory, in the configured order."""

    def model(self, model_id: ModelId) -> ModelState | None:
        """Return one model's state; None when it is not configured."""

    def healthy(self) -> bool:
        """Tell whether a worker is up and beating, so that a job given now would be taken up."""

    def worker_pid(self) -> int | None:
        """Return the present worker's process id; None while there is none."""

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` after any change of health or model states; returns the way to stop."""

    async def generate(
        self, job: ImageJob, on_progress: Callable[[Progress], None]
    ) -> ImageResult:
        """Make a job's images, all or none.

        Cancelling the awaiting task takes the job off its queue, or ends it at the next denoise
        step. Raises EngineBusyError or JobFailedError. `on_progress` is called on the event loop;
        after a worker's crash the count starts again from zero.
        """


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How a process engine runs. Times are seconds; `threads` 0 means one a core."""

    threads: int = 0
    max_jobs: int = 256  #: jobs held at once, waiting ones included
    max_active_samples: int = 16  #: images under way at once in the worker; bounds its memory
    max_models: int = 4  #: models kept in memory; warm ones count and are never dropped
    heartbeat_interval: float = 1.0
    hang_after: float = 5.0  #: silence of the worker's process, or delay beyond a step's own time
    longest_step: float = 60.0  #: no denoise step, text encoding or decode may take longer
    longest_load: float = 600.0  #: no model may take longer to load
    restart_backoff: float = 0.2  #: before the second restart; doubles up to `restart_backoff_cap`
    restart_backoff_cap: float = 30.0
    attempts: int = 2  #: how often a job may be running in a worker that dies


@asynccontextmanager
async def open_process_engine(
    specs: Sequence[ModelSpec],
    *,
    device: str = "auto",
    clock: Clock,
    options: EngineOptions | None = None,
) -> AsyncIterator[Engine]:
    """Start a worker process for `device` ("auto", "cpu", "cuda", "cuda:1") and keep it running.

    Yields at once: models load in the background, `Engine.models()` tells how far they are, and
    jobs given meanwhile wait. Leaving the context cancels every job and ends the worker.
    """
    raise NotImplementedError(specs, device, clock, options)
    yield
