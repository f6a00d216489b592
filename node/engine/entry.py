"""A job on the engine's side of the pipe, from `generate` until it ends."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from node.engine.protocol import Failed, ImageDone, Started, Stepped, Warned
from node.engine.recovery import Standing
from node.engine.work import EncodedImage, ImageJob, ImageResult, JobFailedError, Progress

JobNews = Started | Warned | Stepped | ImageDone | Failed


@dataclass(slots=True)
class Entry:
    """One job. Images outlive the worker that made them; `base` counts the steps of those."""

    ticket: int
    job: ImageJob
    on_progress: Callable[[Progress], None]
    ended: asyncio.Future[ImageResult]
    images: dict[int, EncodedImage] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    sent: bool = False
    running: bool = False
    crashes: int = 0
    base: int = 0

    @property
    def standing(self) -> Standing:
        return Standing(self.ticket, self.sent, self.running, self.crashes)

    @property
    def wanted(self) -> tuple[int, ...]:
        return tuple(i for i in range(len(self.job.seeds)) if i not in self.images)

    def take(self, message: JobNews) -> None:
        """Take in what the worker says of this job."""
        match message:
            case Started():
                self.running = True
                self._tell_progress(self.base)
            case Warned():
                self.warnings = message.warnings
            case Stepped():
                self._tell_progress(self.base + message.done)
            case ImageDone():
                self._take_image(message)
            case Failed():
                self.fail(JobFailedError(message.kind, message.message))

    def fail(self, error: Exception) -> None:
        """End the job without images, unless it has ended."""
        if not self.ended.done():
            self.ended.set_exception(error)

    def _take_image(self, message: ImageDone) -> None:
        seeds = self.job.seeds
        self.images[message.index] = EncodedImage(
            message.png, seeds[message.index], message.safety
        )
        self.seconds += message.denoise_seconds
        if not self.wanted:
            images = tuple(self.images[index] for index in range(len(seeds)))
            self.ended.set_result(ImageResult(images, self.seconds, self.warnings))

    def _tell_progress(self, done: int) -> None:
        total = self.job.steps * len(self.job.seeds)
        try:
            self.on_progress(Progress(self.job.job_id, min(done, total), total))
        except Exception as error:  # noqa: BLE001  the caller's fault ends the caller's job only
            self.fail(error)
