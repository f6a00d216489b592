"""Who watches which job, on the engine's side of the pipe."""

from collections.abc import Callable

import structlog

from network.units import JobId
from node.engine.work import Preview

log = structlog.get_logger("node.engine")


class Audience:
    """Belongs to one event loop. A job may be watched before it is there, and by several."""

    def __init__(self, changed: Callable[[JobId], None]) -> None:
        """`changed` is called when a job gets its first watcher or loses its last one."""
        self._changed = changed
        self._watchers: dict[JobId, list[Callable[[Preview], None]]] = {}

    def watches(self, job_id: JobId) -> bool:
        """Tell whether anybody watches this job."""
        return job_id in self._watchers

    def join(self, job_id: JobId, on_preview: Callable[[Preview], None]) -> Callable[[], None]:
        """Show a job's previews to `on_preview`; returns the way to stop, good for one call."""
        watchers = self._watchers.setdefault(job_id, [])
        watchers.append(on_preview)
        if len(watchers) == 1:
            self._changed(job_id)

        def leave() -> None:
            watchers.remove(on_preview)
            if not watchers:
                del self._watchers[job_id]
                self._changed(job_id)

        return leave

    def show(self, preview: Preview) -> None:
        """Hand a preview to everybody who watches its job."""
        for on_preview in tuple(self._watchers.get(preview.job_id, ())):
            try:
                on_preview(preview)
            except Exception:  # a watcher's fault is not the job's
                log.exception("engine.watcher_failed", job_id=preview.job_id)
