"""The LoRA files that jobs may name. Any thread may ask."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.config.lora_file import LoraBounds, LoraFileError, read_lora
from node.engine.protocol import Lora


@dataclass(frozen=True, slots=True)
class ReadLora:
    """A LoRA's tensors by name; `pairs` is the number of layers it changes."""

    pairs: int
    tensors: Mapping[str, Any]


class Library:
    """Reads LoRAs by id. Every loaded model keeps up to `max_bytes` of them."""

    def __init__(self, loras: Sequence[Lora], bounds: LoraBounds, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        #: held while modules are built: libraries patch torch itself meanwhile, for all threads
        self.building = threading.Lock()
        self._paths = {lora.lora_id: Path(lora.path) for lora in loras}
        self._bounds = bounds

    def read(self, lora_id: str) -> ReadLora:
        """Read a LoRA's file. Raises LoraFileError."""
        path = self._paths.get(lora_id)
        if path is None:
            raise LoraFileError("is not configured")
        head, data = read_lora(path, self._bounds)
        return ReadLora(head.pairs, _parsed(data))


def _parsed(data: bytes) -> dict[str, Any]:
    # Not at the top: the library is made before the worker's first heartbeat, and torch after it.
    import torch  # noqa: PLC0415
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.torch import load  # noqa: PLC0415

    try:
        tensors = load(data)
    except SafetensorError as error:
        raise LoraFileError(f"is damaged: {error}") from None
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise LoraFileError(f"is damaged: {name!r} holds values that are not finite")
    return tensors
