"""How a process engine runs."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """All times are seconds."""

    threads: int = 0  #: for torch on the CPU; 0 means one a core
    max_jobs: int = 256  #: jobs held at once, waiting ones included
    max_active_samples: int = 64  #: images under way at once in the worker; bounds its memory
    max_batch: int = 32  #: images in one denoise step; how many are worth it is measured
    batch_file: Path | None = None  #: where measured batch sizes are kept between starts
    prompt_cache_bytes: int = 128 * 2**20  #: of encoded prompts kept for the next request
    max_models: int = 4  #: models kept in memory; warm ones count and are never dropped
    hang_after: float = 5.0  #: the worker's silence, or what a step may take beyond its allowance
    longest_step: float = 120.0  #: no denoise step, text encoding or decode may take longer
    longest_load: float = 600.0  #: no model may take longer to load
    restart_backoff: float = 0.2  #: after the second crash in a row; doubles up to the cap
    restart_backoff_cap: float = 30.0
    steady_after: float = 60.0  #: a worker that lived this long ends a row of crashes
    attempts: int = 2  #: how often a job may be running in a worker that dies before it fails
    start_attempts: int = 3  #: starts that fail in a row before waiting jobs are failed
