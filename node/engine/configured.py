"""The engine as a node's settings ask for it."""

from contextlib import AbstractAsyncContextManager

from network.runtime.clock import Clock
from node.config.catalogue import Catalogue
from node.config.loras import bounds_of
from node.config.profiles import Profile
from node.config.settings import NodeSettings, SafetySettings
from node.engine.backend import Engine, open_process_engine
from node.engine.options import Acceleration, EngineOptions, SafetyOptions
from node.engine.work import LoraSpec, ModelSpec, SchedulerChoice


def open_engine(
    settings: NodeSettings, models: Catalogue, clock: Clock
) -> AbstractAsyncContextManager[Engine]:
    """Start the worker process that the settings ask for."""
    specs = model_specs(models)
    bounds = bounds_of(settings)
    options = EngineOptions(
        threads=settings.engine.threads,
        memory_budget=settings.engine.memory_budget,
        host_memory_budget=settings.engine.host_memory_budget,
        acceleration=Acceleration(settings.engine.compile, settings.engine.fuse_projections),
        # Absolute: the worker may run elsewhere.
        batch_file=settings.data_dir.absolute() / "batching.json",
        compiled_dir=settings.data_dir / "compiled",
        lora_cache_bytes=settings.engine.lora_cache_mib * 2**20,
        max_lora_bytes=bounds.max_bytes,
        max_lora_rank=bounds.max_rank,
        safety=safety_options(settings.safety),
    )
    return open_process_engine(
        specs,
        device=settings.engine.device,
        clock=clock,
        options=options,
        loras=[LoraSpec(lora.lora_id, lora.path) for lora in models.loras],
    )


def safety_options(settings: SafetySettings) -> SafetyOptions:
    """Return what the engine is told about the safety checker."""
    return SafetyOptions(**dict(settings))


def model_specs(models: Catalogue) -> list[ModelSpec]:
    """Return the models as the engine is told of them."""
    return [
        ModelSpec(model.model_id, model.path, model.warm, model.dtype, _scheduler(model.profile))
        for model in models.models
    ]


def _scheduler(profile: Profile | None) -> SchedulerChoice | None:
    if profile is None or profile.scheduler is None:
        return None
    return SchedulerChoice(profile.scheduler, profile.scheduler_options)
