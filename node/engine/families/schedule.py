"""One sample's own scheduler: where it is among its steps, and how it takes the next one.

Schedulers keep state between steps (the multistep ones whole predictions), so samples that share
forward passes must never share one.
"""

import inspect
from typing import Any

import torch

from node.engine.families.base import InvalidJobError


class Schedule:
    """A scheduler made anew from a pipeline's, set to a sample's steps, at its beginning."""

    def __init__(
        self,
        template: Any,
        steps: int,
        device: torch.device,
        generator: torch.Generator,
        **options: Any,
    ) -> None:
        """`options` go to `set_timesteps` beside, or as `sigmas` in the place of, the step count.

        Raises InvalidJobError when the scheduler cannot take that many steps.
        """
        self._scheduler = type(template).from_config(template.config)
        count = () if "sigmas" in options else (steps,)
        try:
            self._scheduler.set_timesteps(*count, device=device, **options)
        except ValueError:
            raise InvalidJobError(f"This model cannot take {steps} steps.") from None
        if hasattr(self._scheduler, "set_begin_index"):
            # Otherwise it searches for the index of its first timestep, and the GPU waits for that.
            self._scheduler.set_begin_index(0)
        self._timesteps: torch.Tensor = self._scheduler.timesteps
        self._steps = steps
        self._position = 0
        wanted = {"eta": 0.0, "generator": generator}
        accepted = inspect.signature(self._scheduler.step).parameters
        self._extras = {name: value for name, value in wanted.items() if name in accepted}

    @property
    def scheduler(self) -> Any:
        """The scheduler itself, which may keep what it foresees of the finished image."""
        return self._scheduler

    @property
    def timestep(self) -> torch.Tensor:
        """The next step's timestep, of shape ()."""
        return self._timesteps[self._position]

    @property
    def first_noise(self) -> Any:
        """What standard noise is multiplied with to begin. Flow matching begins with it as it is."""
        return self._scheduler.init_noise_sigma

    @property
    def done(self) -> int:
        """Steps done, in the steps asked for: PNDM and Heun evaluate the model more often."""
        return self._steps * self._position // len(self._timesteps)

    @property
    def finished(self) -> bool:
        """Tell whether no step is left."""
        return self._position >= len(self._timesteps)

    def model_input(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the latents as the model wants them at this timestep."""
        scaled: torch.Tensor = self._scheduler.scale_model_input(latents, self.timestep)
        return scaled

    def advance(self, prediction: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """Take the step: return the latents after it."""
        after: torch.Tensor = self._scheduler.step(
            prediction, self.timestep, latents, **self._extras, return_dict=False
        )[0]
        self._position += 1
        return after
