"""Tells what a picture shows by measuring its pixels, without knowing the prompt.

The background is fitted from the border, the object is what neither the background nor its
shadow explains, colours are named by the nearest palette entry in CIELAB, and the shape is the
one whose exact outline, scaled to the object's area and centre, overlaps it best.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scripts.builtin_model.rendering import DISTANCES
from scripts.builtin_model.vocabulary import COLOURS, PALETTE_RGB, POSITIONS, SHAPES

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

WORKING_SIDE = 128  # pixels of the shorter side while judging
LEAST_OVERLAP = 0.75  # intersection over union below which no shape is recognised
LEAST_AREA = 0.004  # part of the picture below which there is no object
LEAST_CONTRAST = 0.02  # sRGB distance below which nothing stands out
DARKEST_SHADOW = 0.43
SRGB_LINEAR_END = 0.04045
CENTRE_ZONE = 0.08  # a middle this close to the picture's, in sides, counts as centred


@dataclass(frozen=True)
class Finding:
    """What the judge sees.

    `overlap` is that of the best shape, `area` a part of the picture, `radius` a part of its
    shorter side.
    """

    background: str
    colour: str | None
    shape: str | None
    overlap: float
    area: float
    position: str | None
    radius: float = 0.0


def judge(picture: Image.Image) -> Finding:
    """Name background, object colour, shape and position of a picture with one object."""
    pixels = _shrink(picture)
    border = _border(pixels.shape[:2])
    background = _name_colour(np.median(pixels[border], axis=0))
    mask = find_object(pixels)
    area = float(mask.mean())
    if area < LEAST_AREA:
        return Finding(background, None, None, 0.0, area, None)
    colour = _name_colour(np.median(pixels[mask], axis=0))
    shape, overlap = name_shape(mask)
    found = shape if overlap >= LEAST_OVERLAP else None
    radius = float(np.sqrt(mask.sum() / _outline(shape)[0])) / WORKING_SIDE
    return Finding(background, colour, found, overlap, area, _name_position(mask), radius)


def find_object(pixels: Array) -> Mask:
    """Return the (H, W) mask of what is neither background nor its shadow."""
    ground = _fit_background(pixels)
    from_ground = _distance_to_shades(pixels, ground, 1.0 - DARKEST_SHADOW, 1.08)
    threshold = 0.6 * float(np.quantile(from_ground, 0.995))
    if threshold < LEAST_CONTRAST:
        return np.zeros(pixels.shape[:2], dtype=np.bool_)
    core = np.median(pixels[from_ground > threshold], axis=0)
    from_core = _distance_to_shades(pixels, np.broadcast_to(core, pixels.shape), 0.75, 1.2)
    mask: Mask = from_core < from_ground
    return mask


def name_shape(mask: Mask) -> tuple[str, float]:
    """Return the shape with the highest overlap, and that overlap in 0..1."""
    rows, columns = np.nonzero(mask)
    centre_x, centre_y = columns.mean() + 0.5, rows.mean() + 0.5
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]].astype(np.float32) + 0.5
    overlaps = []
    for name in SHAPES:
        area, offset_x, offset_y = _outline(name)
        best = 0.0
        for scale in (0.95, 1.0, 1.05):
            radius = scale * float(np.sqrt(mask.sum() / area))
            px = (x - centre_x) / radius + offset_x
            py = (y - centre_y) / radius + offset_y
            outline = DISTANCES[name](px, py) < 0.0
            best = max(best, float((mask & outline).sum() / (mask | outline).sum()))
        overlaps.append(best)
    winner = int(np.argmax(overlaps))
    return SHAPES[winner], overlaps[winner]


@cache
def _outline(name: str) -> tuple[float, float, float]:
    """Return area and centroid of a shape of radius 1."""
    steps = 400
    y, x = (np.mgrid[:steps, :steps].astype(np.float32) + 0.5) * (3.0 / steps) - 1.5
    inside = DISTANCES[name](x, y) < 0.0
    return float(inside.mean() * 9.0), float(x[inside].mean()), float(y[inside].mean())


def _shrink(picture: Image.Image) -> Array:
    scale = WORKING_SIDE / min(picture.size)
    size = (round(picture.width * scale), round(picture.height * scale))
    small = picture.convert("RGB").resize(size, Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255.0


def _border(shape: tuple[int, ...]) -> Mask:
    border = np.ones(shape, dtype=np.bool_)
    border[4:-4, 4:-4] = False
    return border


def _fit_background(pixels: Array) -> Array:
    """Fit a quadratic surface to the border, for gradients and dark corners."""
    rows, columns = pixels.shape[:2]
    v, u = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    terms = np.stack([np.ones_like(u), u, v, u * v, u * u + v * v], axis=-1)
    border = _border(pixels.shape[:2])
    factors, *_ = np.linalg.lstsq(terms[border], pixels[border], rcond=None)
    # The border says nothing about the bulge in the middle, so the last term stays bounded.
    factors[-1] = np.clip(factors[-1], -0.08, 0.0)
    factors[0] = np.median(pixels[border] - terms[border][:, 1:] @ factors[1:], axis=0)
    surface: Array = np.clip(terms @ factors, 0.0, 1.0).astype(np.float32)
    return surface


def _distance_to_shades(pixels: Array, colour: Array, darkest: float, lightest: float) -> Array:
    """Return each pixel's (H, W) distance to its colour times the best factor in a range."""
    energy = np.maximum((colour * colour).sum(axis=-1), 1e-4)
    factor = np.clip((pixels * colour).sum(axis=-1) / energy, darkest, lightest)
    distance: Array = np.linalg.norm(pixels - factor[..., None] * colour, axis=-1)
    return distance


def _name_position(mask: Mask) -> str:
    """Name where the middle of the object's bounding box lies, in thirds of the free room."""
    direction = []
    for axis in (1, 0):
        used = np.flatnonzero(mask.any(axis=1 - axis))
        side = mask.shape[axis]
        offset = (used[0] + used[-1] + 1) / 2 / side - 0.5
        direction.append(0 if abs(offset) < CENTRE_ZONE else int(np.sign(offset)))
    names = {value: name for name, value in POSITIONS.items()}
    return names[(direction[0], direction[1])]


def _name_colour(colour: Array) -> str:
    distances = np.linalg.norm(_to_lab(PALETTE_RGB) - _to_lab(colour[None]), axis=-1)
    return COLOURS[int(np.argmin(distances))]


def _to_lab(colours: Array) -> Array:
    """Convert (N, 3) sRGB in 0..1 to CIELAB, D65 (IEC 61966-2-1 and CIE 15)."""
    linear = np.where(
        colours <= SRGB_LINEAR_END, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4
    )
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    ratio = linear @ to_xyz.T / np.array([0.9505, 1.0, 1.089])
    small = ratio * (29 / 6) ** 2 / 3 + 4 / 29
    root = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), small)
    lightness = 116 * root[:, 1] - 16
    a, b = 500 * (root[:, 0] - root[:, 1]), 200 * (root[:, 1] - root[:, 2])
    lab: Array = np.stack([lightness, a, b], axis=-1).astype(np.float32)
    return lab
