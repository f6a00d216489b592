"""The latents of a sample under way, copied for a preview, and what their channels look like."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from node.engine.latent_rgb import LinearRgb, area_means, fit, known_space, probes

#: Waits until a copy has arrived in memory and returns it, (channels, height, width).
Copied = Callable[[], NDArray[np.float32]]


class FamilyLatents:
    """Implements `previewer.Latents` over the families.

    A family takes part by having a `vae` (diffusers' class) and samples with `latents` of shape
    (1, channels, height, width); where these have a `scheduler`, or a `schedule` that has one,
    what it foresees is shown. One whose samples hold something else, FLUX's packed latents say,
    has a method `preview_latents(sample)` that returns (channels, height, width), or None.
    """

    def copy(self, family: Any, sample: Any) -> Copied | None:
        """Take the latents as they are now, without waiting for a GPU. None: nothing to show."""
        with torch.inference_mode():
            latents = _latents(family, sample)
            if latents is None:
                return None
            if latents.device.type != "cuda":
                kept = latents.to(torch.float32, copy=True)
                return lambda: cast("NDArray[np.float32]", kept.numpy())
            # Queued behind the step and before the next one; whoever draws waits for the event.
            host = torch.empty(latents.shape, dtype=latents.dtype, pin_memory=True)
            host.copy_(latents, non_blocking=True)
            arrived = torch.cuda.Event(blocking=True)
            arrived.record(torch.cuda.current_stream(latents.device))

        def wait() -> NDArray[np.float32]:
            arrived.synchronize()
            return cast("NDArray[np.float32]", host.float().numpy())

        return wait

    def colours(self, family: Any) -> LinearRgb:
        """Return what the latents of a family look like. May decode two small pictures.

        Raises ValueError for a family without latents or with a decoder that gives no pictures,
        and whatever torch raises.
        """
        vae = getattr(family, "vae", None)
        if vae is None or not hasattr(vae.config, "latent_channels"):
            raise ValueError("it has no latents that a picture could be made of")
        channels = int(vae.config.latent_channels)
        scale = float(getattr(vae.config, "scaling_factor", None) or 1.0)
        known = known_space(channels, scale)
        if known is not None:
            return known
        shift = float(getattr(vae.config, "shift_factor", None) or 0.0)
        latents = probes(channels)
        with torch.inference_mode():
            inputs = torch.from_numpy(latents).to(device=vae.device, dtype=vae.dtype)
            pictures = vae.decode(inputs / scale + shift, return_dict=False)[0]
            decoded = pictures.float().cpu().numpy()
        return fit(latents, area_means(decoded, latents.shape[-1]))


def _latents(family: Any, sample: Any) -> torch.Tensor | None:
    hook = getattr(family, "preview_latents", None)
    if hook is not None:
        return cast("torch.Tensor | None", hook(sample))
    latents = getattr(sample, "latents", None)
    if latents is None or getattr(family, "vae", None) is None or latents.ndim != 4:  # noqa: PLR2004
        return None
    holder = getattr(sample, "schedule", sample)
    estimate = None if sample.finished else _clean_estimate(getattr(holder, "scheduler", None))
    return cast("torch.Tensor", latents[0] if estimate is None else estimate[0])


def _clean_estimate(scheduler: Any) -> torch.Tensor | None:
    """Return the finished latents as the last step foresaw them, where the scheduler keeps them.

    The multistep solvers that predict the clean sample (DPM++, UniPC) do. It shows the picture
    many steps before the noise is gone.
    """
    config = getattr(scheduler, "config", None)
    kind = str(getattr(config, "algorithm_type", ""))
    if not (kind.endswith("dpmsolver++") or getattr(config, "predict_x0", False)):
        return None
    outputs = getattr(scheduler, "model_outputs", None)
    return outputs[-1] if isinstance(outputs, list) and outputs else None
