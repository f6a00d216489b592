"""An engine without a worker, a model or torch; `test_engine_contract` holds it to the real one."""

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from network.runtime.clock import Clock
from network.units import JobId, ModelId
from network.wire.safety import Safety
from node.config.catalogue import Catalogue
from node.config.settings import NodeSettings
from node.engine.backend import Engine
from node.engine.work import (
    EncodedImage,
    ImageJob,
    ImageResult,
    JobFailedError,
    ModelFacts,
    ModelState,
    Preview,
    Progress,
    SafetyState,
    Tally,
)

MODEL = ModelId("limner/shapes")


def png(width: int, height: int, value: int = 0) -> bytes:
    """A grey image; its brightness is `value` modulo 256."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    row = b"\0" + bytes([value % 256]) * width
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(row * height, 1))
        + chunk(b"IEND", b"")
    )


class FakeEngine:
    """Counts steps by the clock; tests set what it does and read what it was asked."""

    def __init__(self, *models: ModelId, step_seconds: float = 0.0) -> None:
        self.step_seconds = step_seconds
        self.states = {
            model: ModelState(model, "ready", 1.0, facts=ModelFacts())
            for model in models or (MODEL,)
        }
        self.is_healthy = True
        self.pid: int | None = 4711
        #: the next jobs fail with these, in order
        self.failures: list[Exception] = []
        #: what every result warns of
        self.warnings: tuple[str, ...] = ()
        self.jobs: list[ImageJob] = []
        self.cancelled: list[ImageJob] = []
        self.active = 0
        self.most_active = 0
        self.safety_state = SafetyState("none", "flag", "off")
        self.verdict = Safety.UNCHECKED
        self._done = Tally()
        self.previews_made = 0
        #: what a preview is
        self.jpeg = b"\xff\xd8 a preview"
        self._listeners: list[Callable[[], None]] = []
        self._watchers: dict[JobId, list[Callable[[Preview], None]]] = {}

    def models(self) -> tuple[ModelState, ...]:
        return tuple(self.states.values())

    def model(self, model_id: ModelId) -> ModelState | None:
        return self.states.get(model_id)

    def healthy(self) -> bool:
        return self.is_healthy

    def tally(self) -> Tally:
        return self._done

    def safety(self) -> SafetyState:
        return self.safety_state

    def resident_bytes(self) -> int:
        return 0

    def worker_pid(self) -> int | None:
        return self.pid

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        self._listeners.append(changed)
        return lambda: self._listeners.remove(changed)

    def watch(self, job_id: JobId, on_preview: Callable[[Preview], None]) -> Callable[[], None]:
        watchers = self._watchers.setdefault(job_id, [])
        watchers.append(on_preview)
        return lambda: watchers.remove(on_preview)

    def change(self, *states: ModelState, healthy: bool | None = None) -> None:
        """Make it so, and tell everybody who listens."""
        for state in states:
            self.states[state.model_id] = state
        if healthy is not None:
            self.is_healthy = healthy
        for listener in tuple(self._listeners):
            listener()

    async def generate(
        self, job: ImageJob, on_progress: Callable[[Progress], None]
    ) -> ImageResult:
        self.jobs.append(job)
        self.active += 1
        self.most_active = max(self.active, self.most_active)
        total = job.steps * len(job.seeds)
        try:
            on_progress(Progress(job.job_id, 0, total))
            for step in range(total):
                await asyncio.sleep(self.step_seconds)
                on_progress(Progress(job.job_id, step + 1, total))
                self._show(Preview(job.job_id, step // job.steps, step % job.steps + 1, self.jpeg))
            if self.failures:
                raise self.failures.pop(0)
        except asyncio.CancelledError:
            self.cancelled.append(job)
            raise
        finally:
            self.active -= 1
        images = tuple(
            EncodedImage(png(job.width, job.height, seed), seed, self.verdict)
            for seed in job.seeds
        )
        return ImageResult(images, total * self.step_seconds, self.warnings)

    def _show(self, preview: Preview) -> None:
        for on_preview in tuple(self._watchers.get(preview.job_id, ())):
            self.previews_made += 1
            on_preview(preview)

    def opener(
        self, _settings: NodeSettings, _models: Catalogue, _clock: Clock
    ) -> AbstractAsyncContextManager[Engine]:
        """What `node.app.open_node` opens instead of a worker process."""

        @asynccontextmanager
        async def opened() -> AsyncIterator[Engine]:
            yield self

        return opened()


__all__ = ["MODEL", "FakeEngine", "JobFailedError", "png"]
