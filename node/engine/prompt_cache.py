"""Keeps encoded prompts, so that asking again costs no text encoder. No torch.

An encoded prompt found here is the very one that was encoded, so images do not change by it.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from node.engine.families.base import Family
from node.engine.work import ImageJob


class PromptCache:
    """Encoded prompts within so many bytes, least recently used out. For one thread."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    @property
    def bytes(self) -> int:
        """What all entries take, without their keys."""
        return self._bytes

    def get(self, key: Hashable) -> Any | None:
        """Return what was put under `key`; None when it is not there (any more)."""
        found = self._entries.get(key)
        if found is None:
            return None
        self._entries.move_to_end(key)
        return found[0]

    def put(self, key: Hashable, encoded: Any) -> None:
        """Keep an encoded prompt, unless it is larger than all the room there is."""
        size = held_bytes(encoded)
        if size > self._most_bytes:
            return
        _, replaced = self._entries.pop(key, (None, 0))
        self._bytes += size - replaced
        self._entries[key] = (encoded, size)
        while self._bytes > self._most_bytes:
            _, (_, freed) = self._entries.popitem(last=False)
            self._bytes -= freed

    def clear(self) -> None:
        """Let everything go: memory is short."""
        self._entries.clear()
        self._bytes = 0


def held_bytes(encoded: Any) -> int:
    """Return the bytes of all tensors in an encoded prompt, however it nests them."""
    size = getattr(encoded, "nbytes", None)
    if isinstance(size, int):
        return size
    if is_dataclass(encoded) and not isinstance(encoded, type):
        return sum(held_bytes(getattr(encoded, field.name)) for field in fields(encoded))
    if isinstance(encoded, Mapping):
        return sum(held_bytes(part) for part in encoded.values())
    if isinstance(encoded, Iterable) and not isinstance(encoded, str | bytes):
        return sum(held_bytes(part) for part in encoded)
    return 0


def prompt_key(family: Family, job: ImageJob) -> Hashable | None:
    """Return what an encoded prompt depends on; None where the family keeps none.

    A family that has a `prompt_key(job)` checks the job in it as in `encode`, and returns what
    `encode` reads of the job beside what is taken into account here: model, texts and adapters.
    Raises InvalidJobError.
    """
    own = getattr(family, "prompt_key", None)
    if own is None:
        return None
    return (job.model_id, job.prompts, job.negative_prompts, job.lora_set, own(job))
