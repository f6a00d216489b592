"""What anybody may ask: is it up, on what, and which version. Shapes of Livepeer's runner."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import orjson
from aiohttp import web

from network.capabilities import TEXT_TO_IMAGE_PIPELINE
from network.units import ModelId
from node.discovery.hardware import Hardware
from node.engine.backend import Engine
from node.jobs.runner import JobRunner


@dataclass(frozen=True, slots=True)
class HealthService:
    """Answers from memory, so that a busy node is never taken for a dead one."""

    engine: Engine
    hardware: Hardware
    version: str
    model_id: ModelId

    def status(self) -> str:
        """Return LOADING, OK or ERROR."""
        states = {state.status for state in self.engine.models()}
        if states == {"failed"} or self.engine.safety().status == "failed":
            return "ERROR"
        if self.engine.healthy() and states & {"ready", "cold"}:
            return "OK"
        return "LOADING"

    def is_ready(self) -> bool:
        """Tell whether every model that is to be in memory is there."""
        return self.status() == "OK" and all(
            state.status != "loading" for state in self.engine.models()
        )

    async def get_health(self, _request: web.Request) -> web.Response:
        """Tell the status, who checks images for safety, and how far loading models are.

        IDLE, which Livepeer's runner knows as well, makes its orchestrator take the runner for
        unused, and is never said.
        """
        safety = self.engine.safety()
        told: dict[str, object] = {
            "status": self.status(),
            "safety": {
                "checker": safety.checker,
                "status": safety.status,
                "policy": safety.policy,
            },
        }
        states = self.engine.models()
        if told["status"] != "OK":
            details = (f"{state.model_id}: {state.detail}" for state in states if state.detail)
            told["detail"] = "; ".join(details)
        if told["status"] == "LOADING":
            shares = [state.progress for state in states if state.status in {"loading", "ready"}]
            told["progress"] = round(sum(shares) / len(shares), 3) if shares else 0.0
        return _json(told)

    async def get_version(self, _request: web.Request) -> web.Response:
        """Tell the version."""
        return _json({**self._about(), "version": self.version})

    async def get_hardware_info(self, _request: web.Request) -> web.Response:
        """Tell the GPUs and their memory; none is an empty object."""
        readings = await self.hardware.refresh()
        gpus = {str(index): asdict(reading.gpu) for index, reading in enumerate(readings)}
        return _json({**self._about(), "gpu_info": gpus})

    async def get_hardware_stats(self, _request: web.Request) -> web.Response:
        """Tell how busy the GPUs are, in percent."""
        stats = {
            str(index): {
                "id": reading.gpu.id,
                "name": reading.gpu.name,
                "memory_total": reading.gpu.memory_total,
                "memory_free": reading.gpu.memory_free,
                "utilization_compute": reading.utilization_compute,
                "utilization_memory": reading.utilization_memory,
            }
            for index, reading in enumerate(await self.hardware.refresh())
        }
        return _json({**self._about(), "gpu_stats": stats})

    def _about(self) -> Mapping[str, str]:
        return {"pipeline": TEXT_TO_IMAGE_PIPELINE, "model_id": self.model_id}


@dataclass(frozen=True, slots=True)
class ProgressService:
    """Tells how far a job is to whoever knows its id, which nobody can guess."""

    runner: JobRunner

    async def get_job(self, request: web.Request) -> web.Response:
        """Tell a job's progress; 404 once it is over."""
        progress = self.runner.progress(request.match_info["job_id"])
        if progress is None:
            raise web.HTTPNotFound
        return _json(asdict(progress))


def _json(value: object) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")
