"""Finds out what a LoRA's file means for a pipeline: which layers it changes, and by what.

diffusers and peft know the formats and names of people's files. They are let loose on a shadow of
the pipeline, which has its modules and none of its weights: attaching a LoRA takes them seconds,
in which the real pipeline goes on with its steps.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel

from node.engine.loras.library import ReadLora

_ADAPTER = "fitted"


class MisfitError(Exception):
    """The LoRA is none for this pipeline. The message may go to the client."""


@dataclass(frozen=True, slots=True)
class LowRank:
    """What is added to a layer: `scaling * up(down(input))`. `path` leads to it in `component`."""

    component: str
    path: str
    down: torch.nn.Module
    up: torch.nn.Module
    scaling: float


@dataclass(frozen=True, slots=True)
class FittedLora:
    """A LoRA for one pipeline; `size` is the bytes of its weights."""

    layers: tuple[LowRank, ...]
    size: int


class Fitter:
    """Fits LoRAs to one pipeline. One thread at a time may use it."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._shadow: Any = None

    def fit(self, lora: ReadLora) -> FittedLora:
        """Return what a LoRA adds, in the pipeline's number format, on the CPU.

        Raises MisfitError, MemoryError, or whatever torch raises when there is no memory.
        """
        if self._shadow is None:
            self._shadow = _shadow_of(self._pipeline)
        try:
            # Not `low_cpu_mem_usage`, which patches torch for all threads.
            self._shadow.load_lora_weights(
                dict(lora.tensors), adapter_name=_ADAPTER, low_cpu_mem_usage=False
            )
            layers = tuple(_layers(self._shadow))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise MisfitError("its layers are not this model's") from error
        except RuntimeError as error:
            if "size mismatch" not in str(error):
                raise
            raise MisfitError("its layers have other sizes than this model's") from error
        finally:
            self._clear()
        # diffusers leaves out, with a warning, what it finds no layer for.
        if len(layers) < lora.pairs:
            raise MisfitError(
                f"it changes {lora.pairs} layers, of which this model has {len(layers)}"
            )
        return FittedLora(layers, sum(map(_bytes, layers)))

    def _clear(self) -> None:
        try:
            self._shadow.delete_adapters(_ADAPTER)
        except (ValueError, KeyError, AttributeError):
            self._shadow = None  # half attached: the next one gets a new shadow


def _shadow_of(pipeline: Any) -> Any:
    shadow = copy.copy(pipeline)
    for name, component in pipeline.components.items():
        if isinstance(component, (diffusers.ModelMixin, PreTrainedModel)) and name != "vae":
            setattr(shadow, name, _skeleton(component))
    return shadow


def _skeleton(model: Any) -> Any:
    """Build a model's modules; each tensor is one number, shown in the tensor's shape."""
    with torch.device("meta"):
        if isinstance(model, PreTrainedModel):
            bare = type(model)(model.config)
        else:
            bare = type(model).from_config(model.config)
    for module in bare.modules():
        for name, parameter in module.named_parameters(recurse=False):
            shown = torch.nn.Parameter(_shown(parameter, model.dtype), requires_grad=False)
            module.register_parameter(name, shown)
        for name, buffer in module.named_buffers(recurse=False):
            module.register_buffer(name, _shown(buffer, buffer.dtype))
    return bare


def _shown(tensor: torch.Tensor, number_format: torch.dtype) -> torch.Tensor:
    return torch.zeros((), dtype=number_format).expand(tensor.shape)


def _layers(pipeline: Any) -> Iterator[LowRank]:
    for component, model in pipeline.components.items():
        if not isinstance(model, torch.nn.Module):
            continue
        for path, module in model.named_modules():
            if isinstance(module, BaseTunerLayer) and _ADAPTER in getattr(module, "lora_A", ()):
                yield LowRank(
                    component,
                    path,
                    module.lora_A[_ADAPTER].requires_grad_(requires_grad=False),
                    module.lora_B[_ADAPTER].requires_grad_(requires_grad=False),
                    float(module.scaling[_ADAPTER]),
                )


def _bytes(layer: LowRank) -> int:
    return sum(
        parameter.numel() * parameter.element_size()
        for module in (layer.down, layer.up)
        for parameter in module.parameters()
    )
