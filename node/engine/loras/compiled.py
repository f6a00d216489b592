"""Compiled blocks and LoRAs: with one in the model its blocks run as they are written.

Compiling them for each set would take seconds in the middle of somebody's image, and is made in
vain when the next set comes. Without LoRAs they are what they were, and nothing is compiled anew.
"""

from typing import Any

import torch


class CompiledBlocks:
    """The blocks of a pipeline's models that torch has compiled."""

    def __init__(self, pipeline: Any) -> None:
        models = [one for one in pipeline.components.values() if isinstance(one, torch.nn.Module)]
        # torch offers no other way to call a block both ways; `acceleration` relies on it, too.
        self._blocks = [
            (block, block._compiled_call_impl)  # noqa: SLF001
            for model in models
            for block in model.modules()
            if block._compiled_call_impl is not None  # noqa: SLF001
        ]

    def use(self, *, compiled: bool) -> None:
        """Let the next calls run the compiled code, or the code as it is written."""
        for block, code in self._blocks:
            block._compiled_call_impl = code if compiled else None  # noqa: SLF001
