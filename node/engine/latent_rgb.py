"""What latents look like: a linear map from their channels to colours. Pure; numpy only.

A latent pixel is nearly a colour: three weights a channel and an offset give a picture that is
blurred but right, for a millionth of what decoding costs. For latent spaces that many models
share the weights are published figures, measured on photographs; for any other one they are fitted
to its decoder.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

#: Latents of a wider spread than a finished picture's are noise, and shown at this spread.
_WIDEST: Final = 1.5
_PROBES: Final = 8
_PROBE_SIDE: Final = 8
_PROBE_GRAINS: Final = (2, 4, 8)
#: The standard deviation of the latents that a fit looks at: where decoders are most linear.
_PROBE_SPREAD: Final = 0.6

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class LinearRgb:
    """Weights of shape (channels, 3) and an offset of shape (3,); colours from -1 to 1."""

    weights: Floats
    offset: Floats

    def __post_init__(self) -> None:
        if self.weights.ndim != 2 or self.weights.shape[1] != 3 or self.offset.shape != (3,):  # noqa: PLR2004
            raise ValueError(f"no map to colours: {self.weights.shape}, {self.offset.shape}")
        if not (np.isfinite(self.weights).all() and np.isfinite(self.offset).all()):
            raise ValueError("the decoder gives no finite colours")

    def picture(self, latents: Floats) -> NDArray[np.uint8]:
        """Return latents of shape (channels, height, width) as (height, width, 3), RGB.

        Raises ValueError for another number of channels.
        """
        if latents.ndim != 3 or len(latents) != len(self.weights):  # noqa: PLR2004
            raise ValueError(f"{len(self.weights)} channels were expected, not {latents.shape}")
        calm = np.nan_to_num(latents, posinf=0.0, neginf=0.0)
        calm = calm / max(1.0, float(calm.std()) / _WIDEST)
        colours = np.tensordot(calm, self.weights, axes=(0, 0)) + self.offset
        return ((colours + 1.0) * 127.5).clip(0, 255).round().astype(np.uint8)


def known_space(channels: int, scaling_factor: float) -> LinearRgb | None:
    """Return the map of a published latent space, found by its VAE's configuration, or None."""
    for space_channels, space_factor, weights, offset in _SPACES:
        if channels == space_channels and math.isclose(scaling_factor, space_factor):
            return LinearRgb(np.array(weights), np.array(offset))
    return None


def fit(latents: Floats, colours: Floats) -> LinearRgb:
    """Return the map that comes closest, by least squares.

    Latents have the shape (pictures, channels, height, width), colours (pictures, 3, height,
    width) from -1 to 1, averaged over the area of each latent pixel.
    """
    inputs = np.moveaxis(latents, 1, -1).reshape(-1, latents.shape[1]).astype(np.float64)
    wanted = np.moveaxis(colours, 1, -1).reshape(-1, 3).astype(np.float64)
    inputs = np.column_stack([inputs, np.ones(len(inputs))])
    solution = np.linalg.lstsq(inputs, wanted, rcond=None)[0]
    return LinearRgb(solution[:-1], solution[-1])


def probes(channels: int) -> NDArray[np.float32]:
    """Return latents to fit a decoder on, (pictures, channels, side, side), always the same ones.

    Pictures are smooth nearly everywhere, so these are noise of several grain sizes, one upon the
    other, up to one colour for all of a picture.
    """
    draw = np.random.default_rng(20)
    field = np.zeros((_PROBES, channels, _PROBE_SIDE, _PROBE_SIDE))
    for grain in _PROBE_GRAINS:
        cells = _PROBE_SIDE // grain
        coarse = draw.standard_normal((_PROBES, channels, cells, cells))
        field += np.repeat(np.repeat(coarse, grain, axis=2), grain, axis=3)
    return (field * (_PROBE_SPREAD / math.sqrt(len(_PROBE_GRAINS)))).astype(np.float32)


def area_means(pictures: Floats, side: int) -> Floats:
    """Return square pictures (n, 3, size, size) averaged to (n, 3, side, side)."""
    count, channels, size, _ = pictures.shape
    block = size // side
    means: Floats = pictures.reshape(count, channels, side, block, side, block).mean(axis=(3, 5))
    return means


# Channels, the VAE's scaling factor, weights by channel, offset. The figures are those of the
# latent formats of ComfyUI (comfy/latent_formats.py), which applies them to latents as samplers
# hold them: scaled, which is how the engine holds them too.
_Space = tuple[int, float, list[list[float]], list[float]]
_STABLE_DIFFUSION: Final[_Space] = (
    4,
    0.18215,
    [
        [0.3512, 0.2297, 0.3227],
        [0.3250, 0.4974, 0.2350],
        [-0.2829, 0.1762, 0.2721],
        [-0.2120, -0.2616, -0.7177],
    ],
    [0.0, 0.0, 0.0],
)
_STABLE_DIFFUSION_XL: Final[_Space] = (
    4,
    0.13025,
    [
        [0.3651, 0.4232, 0.4341],
        [-0.2533, -0.0042, 0.1068],
        [0.1076, 0.1111, -0.0362],
        [-0.3165, -0.2492, -0.2188],
    ],
    [0.1084, -0.0175, -0.0011],
)
_STABLE_DIFFUSION_3: Final[_Space] = (
    16,
    1.5305,
    [
        [-0.0922, -0.0175, 0.0749],
        [0.0311, 0.0633, 0.0954],
        [0.1994, 0.0927, 0.0458],
        [0.0856, 0.0339, 0.0902],
        [0.0587, 0.0272, -0.0496],
        [-0.0006, 0.1104, 0.0309],
        [0.0978, 0.0306, 0.0427],
        [-0.0042, 0.1038, 0.1358],
        [-0.0194, 0.0020, 0.0669],
        [-0.0488, 0.0130, -0.0268],
        [0.0922, 0.0988, 0.0951],
        [-0.0278, 0.0524, -0.0542],
        [0.0332, 0.0456, 0.0895],
        [-0.0069, -0.0030, -0.0810],
        [-0.0596, -0.0465, -0.0293],
        [-0.1448, -0.1463, -0.1189],
    ],
    [0.2394, 0.2135, 0.1925],
)
_FLUX: Final[_Space] = (
    16,
    0.3611,
    [
        [-0.0346, 0.0244, 0.0681],
        [0.0034, 0.0210, 0.0687],
        [0.0275, -0.0668, -0.0433],
        [-0.0174, 0.0160, 0.0617],
        [0.0859, 0.0721, 0.0329],
        [0.0004, 0.0383, 0.0115],
        [0.0405, 0.0861, 0.0915],
        [-0.0236, -0.0185, -0.0259],
        [-0.0245, 0.0250, 0.1180],
        [0.1008, 0.0755, -0.0421],
        [-0.0515, 0.0201, 0.0011],
        [0.0428, -0.0012, -0.0036],
        [0.0817, 0.0765, 0.0749],
        [-0.1264, -0.0522, -0.1103],
        [-0.0280, -0.0881, -0.0499],
        [-0.1262, -0.0982, -0.0778],
    ],
    [-0.0329, -0.0718, -0.0851],
)
_SPACES: Final = (_STABLE_DIFFUSION, _STABLE_DIFFUSION_XL, _STABLE_DIFFUSION_3, _FLUX)
