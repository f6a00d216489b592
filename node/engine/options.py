"""How a process engine runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

OPEN_NSFW: Final = "opennsfw"
NO_CHECKER: Final = "none"


@dataclass(frozen=True, slots=True)
class Acceleration:
    """How models are made faster on CUDA; on CPUs it has no effect."""

    #: "auto" compiles the blocks that a model repeats when it is loaded
    compile: Literal["auto", "off"] = "auto"
    #: one matrix in place of three in attention; models then take no LoRAs
    fuse_projections: bool = False


@dataclass(frozen=True, slots=True)
class SafetyOptions:
    """Who looks at finished images, and what becomes of those it objects to.

    `checker` is OPEN_NSFW, NO_CHECKER, or the folder of a classifier, whose `unsafe_labels` (in
    any case) count. An image is unsafe from the score `threshold` on, from 0 to 1.
    """

    checker: str = NO_CHECKER
    policy: Literal["flag", "blur", "refuse"] = "flag"
    threshold: float = 0.5
    device: str = "auto"
    unsafe_labels: tuple[str, ...] = ()
    always: bool = False  #: look even where the client asked for no check

    @property
    def name(self) -> str:
        """What strangers may know the checker by: nothing of this machine's folders but the last."""
        named = self.checker in {OPEN_NSFW, NO_CHECKER}
        return self.checker if named else Path(self.checker).name


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """All times are seconds."""

    threads: int = 0  #: for torch on the CPU; 0 means one a core
    max_jobs: int = 256  #: jobs held at once, waiting ones included
    max_active_samples: int = 64  #: images under way at once in the worker; bounds its memory
    max_batch: int = 32  #: images in one denoise step; how many are worth it is measured
    batch_file: Path | None = None  #: where measured batch sizes are kept between starts
    prompt_cache_bytes: int = 128 * 2**20  #: of encoded prompts kept for the next request
    #: bytes of weights on the device, and of those kept in host memory beside it; None: by the
    #: memory there is. On a CPU the first is all
    memory_budget: int | None = None
    host_memory_budget: int | None = None
    forget_after: float = 300.0  #: how long a size that did not fit into memory is refused
    lora_cache_bytes: int = 2**30  #: LoRAs that each loaded model keeps
    max_lora_bytes: int = 512 * 2**20  #: no LoRA's file may be larger
    max_lora_rank: int = 256  #: no LoRA's matrices may have a larger rank
    hang_after: float = 3.0  #: the worker's silence, or what work may take beyond its limit
    still_after: float = 3.0  #: a thread at work that neither runs nor waits for a disk
    longest_step: float = 120.0  #: no denoise step, text encoding or decode may take longer
    longest_load: float = 600.0  #: no model may take longer to load
    preview_steps: int = 1  #: from one preview of a watched image to the next
    preview_interval: float = 0.1  #: and not more often than this, so that previews cost little
    restart_backoff: float = 0.2  #: after the second crash in a row; doubles up to the cap
    restart_backoff_cap: float = 30.0
    steady_after: float = 60.0  #: a worker that lived this long ends a row of crashes
    attempts: int = 3  #: how often a job may be running in a worker that dies before it fails
    start_attempts: int = 3  #: starts that fail in a row before waiting jobs are failed
    acceleration: Acceleration = Acceleration()
    compiled_dir: Path | None = None  #: where compiled code is kept from one start to the next
    safety: SafetyOptions = SafetyOptions()
