"""The LoRAs of one loaded model: fitted when first asked for, switched between steps.

While no LoRA is asked for the model is made of its own modules and nothing else, so that a LoRA
which is not asked for costs no time and changes no bit.
"""

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from node.config.lora_file import LoraFileError
from node.engine.families.base import InvalidJobError, most_loras
from node.engine.loras.cache import ByteCache
from node.engine.loras.compiled import CompiledBlocks
from node.engine.loras.fitting import FittedLora, Fitter, LowRank, MisfitError
from node.engine.loras.library import Library
from node.engine.work import LoraSet

#: What is added to a layer, and how strongly.
_Part = tuple[LowRank, float]


class LoraSwitch:
    """Implements `families.base.Loras`."""

    def __init__(self, pipeline: Any, library: Library) -> None:
        self._pipeline = pipeline
        self._library = library
        self._fitter = Fitter(pipeline)
        self._fitted: ByteCache[str, FittedLora] = ByteCache(library.max_bytes)
        self._misfits: dict[str, str] = {}
        self._lock = threading.Lock()  # for the two above; the rest is the step thread's own
        self._places: dict[tuple[str, str], _Place] = {}
        self._compiled: CompiledBlocks | None = None
        self._active: LoraSet = ()

    def holds(self, name: str) -> bool:
        """Tell whether a LoRA is ready to be used. Any thread may ask."""
        with self._lock:
            return name in self._fitted

    def prepare(self, name: str) -> FittedLora:
        """Read and fit a LoRA unless that is done. Any thread may ask. Raises InvalidJobError."""
        with self._library.building:
            with self._lock:
                ready, misfit = self._fitted.use(name), self._misfits.get(name)
            if ready is not None:
                return ready
            if misfit is not None:
                raise InvalidJobError(misfit)
            return self._fit(name)

    def activate(self, loras: LoraSet) -> None:
        """Let the next step, or text encoding, use exactly these. Raises InvalidJobError."""
        if loras == self._active:
            return
        parts: dict[tuple[str, str], list[_Part]] = defaultdict(list)
        for name, weight in loras:
            for layer in self._ready(name).layers:
                parts[layer.component, layer.path].append((layer, weight * layer.scaling))
        try:
            self._dress(parts)
        except BaseException:
            # No memory for them, say: the next step must not find half of them in the model.
            self._dress({})
            self._active = ()
            raise
        self._active = loras

    def _dress(self, parts: Mapping[tuple[str, str], Sequence[_Part]]) -> None:
        if self._compiled is None:
            self._compiled = CompiledBlocks(self._pipeline)
        self._compiled.use(compiled=not parts)
        for where in self._places.keys() - parts.keys():
            self._places[where].undress()
        for where, added in parts.items():
            if where not in self._places:
                self._places[where] = _Place(getattr(self._pipeline, where[0]), where[1])
            self._places[where].dress(added)

    def _ready(self, name: str) -> FittedLora:
        with self._lock:
            ready = self._fitted.use(name)
        return self.prepare(name) if ready is None else ready

    def _fit(self, name: str) -> FittedLora:
        try:
            fitted = self._fitter.fit(self._library.read(name))
        except LoraFileError as error:
            raise InvalidJobError(f"LoRa '{name}' cannot be used: its file {error}.") from None
        except MisfitError as error:
            misfit = f"LoRa incompatible with base model: '{name}', {error}."
            with self._lock:
                self._misfits[name] = misfit
            raise InvalidJobError(misfit) from error
        with self._lock:
            self._fitted.put(name, fitted, fitted.size)
        return fitted


class _Place:
    """Where a model's layer is, and its stand-in."""

    def __init__(self, component: torch.nn.Module, path: str) -> None:
        parent, _, self._name = path.rpartition(".")
        self._parent = component.get_submodule(parent)
        self._layer = getattr(self._parent, self._name)
        self._adapted = _Adapted(self._layer)

    def dress(self, parts: Sequence[_Part]) -> None:
        home = self._layer.weight.device
        for part, _ in parts:
            # A model may have been moved since.
            if part.down.weight.device != home:
                part.down.to(home)
                part.up.to(home)
        self._adapted.parts = tuple((part.down, part.up, scale) for part, scale in parts)
        setattr(self._parent, self._name, self._adapted)

    def undress(self) -> None:
        setattr(self._parent, self._name, self._layer)
        self._adapted.parts = ()


class _Adapted(torch.nn.Module):  # type: ignore[misc]
    """A layer, and what LoRAs add to it, in the order and number formats in which peft adds it."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.parts: tuple[tuple[Any, Any, float], ...] = ()

    def forward(self, value: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        result = self.layer(value, *rest, **named)
        number_format = result.dtype
        for down, up, scale in self.parts:
            result = result + up(down(value.to(down.weight.dtype))) * scale
        return result.to(number_format)

    def __getattr__(self, name: str) -> Any:
        # Models look at their layers' weights and sizes.
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)


def loras_of(pipeline: Any, library: Library) -> LoraSwitch | None:
    """Return a pipeline's switch; None for one that takes no LoRAs."""
    return LoraSwitch(pipeline, library) if most_loras(pipeline) else None


__all__ = ["LoraSwitch", "loras_of"]
