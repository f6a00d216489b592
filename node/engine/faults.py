"""Sorts what went wrong while an image was made. Needs no torch: it goes by names and phrases."""

from dataclasses import dataclass

from node.engine.families.base import InvalidJobError
from node.engine.safety import UnsafeImageError
from node.engine.work import FailureKind, ImageJob

_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
_POISON = ("cuda error", "cublas_status", "cudnn_status_execution", "device-side assert")


@dataclass(frozen=True, slots=True)
class Fault:
    """What to tell of a failed job. `poisoned`: the device's state is lost, the process must go."""

    kind: FailureKind
    message: str
    poisoned: bool = False


def classify(error: BaseException, job: ImageJob) -> Fault:
    """Name an exception's kind, with a message that holds none of the job's texts."""
    if isinstance(error, InvalidJobError):
        return Fault(FailureKind.INVALID, str(error))
    if isinstance(error, UnsafeImageError):
        return Fault(FailureKind.UNSAFE, str(error))
    text = str(error)
    if is_out_of_memory(error):
        return Fault(
            FailureKind.OUT_OF_MEMORY,
            f"{job.width}x{job.height} does not fit into the device's memory now.",
        )
    first_line = _without_prompts(text, job).strip().partition("\n")[0][:300]
    message = f"{type(error).__name__}: {first_line}"
    return Fault(FailureKind.INTERNAL, message, is_poison(error))


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out, on the device or in the host."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    lowered = str(error).lower()
    return any(phrase in lowered for phrase in _NO_MEMORY)


def is_poison(error: BaseException) -> bool:
    """Tell whether the device's state is lost for this process."""
    if is_out_of_memory(error):
        return False
    lowered = str(error).lower()
    return type(error).__name__ == "AcceleratorError" or any(p in lowered for p in _POISON)


def _without_prompts(text: str, job: ImageJob) -> str:
    # Libraries quote their inputs in what they raise; clients' texts must not reach a log.
    for prompt in (*job.prompts, *job.negative_prompts):
        if prompt.strip():
            text = text.replace(prompt, "<prompt>")
    return text
