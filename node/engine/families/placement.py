"""A loaded pipeline and where its modules are: in host memory after loading, then where work is done."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from node.engine.families.base import Family
from node.engine.faults import is_out_of_memory
from node.engine.thrift import Group


class PlacedPipeline:
    """Weights of one model. One thread at a time calls `attach` and `detach`.

    `size` is the bytes of all parameters and buffers, counted once where modules share them.
    """

    def __init__(
        self, pipeline: Any, device: torch.device, adapt: Callable[[Any], Family]
    ) -> None:
        """`adapt` makes the pipeline's family once the modules are on the device."""
        self._pipeline = pipeline
        self._device = device
        self._adapt = adapt
        self._family: Family | None = None
        self._attached = False
        self.size = _weight_bytes(pipeline)

    def attach(self) -> Family:
        """Bring every module to the device; return the family that works with them there.

        It is the same one each time, with what it has compiled and learned.
        """
        if not self._attached:
            self._pipeline.to(self._device)
            self._attached = True
        if self._family is None:
            self._family = self._adapt(self._pipeline)
            self.size = _weight_bytes(self._pipeline)
        return self._family

    def attach_if_it_fits(self) -> None:
        """Attach, or leave everything in host memory if the device has too little."""
        try:
            self.attach()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        else:
            return
        self.detach()

    def detach(self) -> None:
        """Bring every module to host memory."""
        self._pipeline.to("cpu")
        self._attached = False

    def bring(self, group: Group) -> None:
        """Bring a group of modules to the device."""
        for module in self._modules(group):
            module.to(self._device)

    def send_away(self, group: Group) -> None:
        """Bring a group of modules to host memory until they are needed."""
        for module in self._modules(group):
            module.to("cpu")

    def can_tile(self) -> bool:
        """Tell whether the autoencoder can work on tiles."""
        return all(hasattr(module, "enable_tiling") for module in self._modules("vae"))

    def tile(self, *, on: bool) -> None:
        """Make the autoencoder work on tiles from now on, or on whole images."""
        for module in self._modules("vae"):
            if on:
                module.enable_tiling()
            else:
                module.disable_tiling()

    def _modules(self, group: Group) -> Iterator[torch.nn.Module]:
        prefix = "text_encoder" if group == "texts" else "vae"
        for name, part in self._pipeline.components.items():
            if name.startswith(prefix) and isinstance(part, torch.nn.Module):
                yield part


def _weight_bytes(pipeline: Any) -> int:
    sizes: dict[int, int] = {}
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            for tensor in (*part.parameters(), *part.buffers()):
                storage = tensor.untyped_storage()
                sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())
