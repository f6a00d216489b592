"""Draws batches of scenes with signed distance functions, at any resolution.

Coordinates are pixels of the full picture, x to the right and y downwards. Distances are
negative inside a shape. The same scene drawn at 1/8 resolution and box-averaged to 1/16 gives
the latent; drawn at full resolution it gives the picture the decoder learns to restore.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scripts.builtin_model.vocabulary import SHAPES

Array = NDArray[np.float32]
#: Distances in between need no fixed precision.
Reals = NDArray[np.floating]

LIGHT = 0.17  # brightness swing across an object
GLOSS = 0.20  # strength of the highlight
SHADOW = 0.42  # how much the shadow takes from the background
SHADOW_OFFSET = (0.09, 0.15)  # in object radii
SHADOW_BLUR = 0.55  # in object radii


@dataclass(frozen=True)
class SceneBatch:
    """Geometry and colours of B scenes with up to K objects; later objects lie on top."""

    width: int
    height: int
    #: (B, K) index into SHAPES, -1 for none.
    shape: NDArray[np.int64]
    #: (B, K) centre and radius in pixels of the full picture.
    x: Array
    y: Array
    radius: Array
    #: (B, K, 3) sRGB in 0..1.
    colour: Array
    #: (B, 3) sRGB in 0..1.
    background: Array
    #: (B,) strength of the background's diagonal gradient.
    gradient: Array
    #: Width of the line that objects are drawn with, in radii; 0 fills them.
    stroke: float = 0.0


@dataclass(frozen=True)
class Window:
    """A rectangle of the picture for each scene, sampled every `pitch` pixels."""

    #: (B,) upper left corner in pixels.
    left: Array
    top: Array
    columns: int
    rows: int
    pitch: float


def whole_picture(batch: SceneBatch, pitch: float) -> Window:
    """Return the window that covers the picture at one sample every `pitch` pixels."""
    zeros = np.zeros(len(batch.background), dtype=np.float32)
    return Window(zeros, zeros, round(batch.width / pitch), round(batch.height / pitch), pitch)


def render(batch: SceneBatch, window: Window) -> Array:
    """Draw (B, rows, columns, 3) sRGB in 0..1."""
    offsets_x = (np.arange(window.columns, dtype=np.float32) + 0.5) * window.pitch
    offsets_y = (np.arange(window.rows, dtype=np.float32) + 0.5) * window.pitch
    x = window.left[:, None, None] + offsets_x[None, None, :]
    y = window.top[:, None, None] + offsets_y[None, :, None]
    picture = _draw_background(batch, x, y)
    for slot in range(batch.shape.shape[1]):
        for index in range(len(SHAPES)):
            rows = np.flatnonzero(batch.shape[:, slot] == index)
            if len(rows):
                _draw_objects(picture, batch, (rows, slot, index), (x, y), window.pitch)
    return np.clip(picture, 0.0, 1.0)


def box_average(pictures: Array, factor: int) -> Array:
    """Average each factor x factor block of (B, H, W, 3)."""
    count, rows, columns, channels = pictures.shape
    blocks = pictures.reshape(count, rows // factor, factor, columns // factor, factor, channels)
    averages: Array = blocks.mean(axis=(2, 4), dtype=np.float32)
    return averages


def _draw_background(batch: SceneBatch, x: Array, y: Array) -> Array:
    """Fill with the background colour, lit from the upper left and darker in the corners."""
    u = x * (2.0 / batch.width) - 1.0
    v = y * (2.0 / batch.height) - 1.0
    light = -0.5 * (u + v) * batch.gradient[:, None, None] - 0.05 * (u * u + v * v)
    base = batch.background[:, None, None, :]
    return _lit(base, light)


def _draw_objects(
    picture: Array,
    batch: SceneBatch,
    which: tuple[NDArray[np.int64], int, int],
    grid: tuple[Array, Array],
    pitch: float,
) -> None:
    """Draw one kind of shape into those pictures of the batch that have it in a slot."""
    rows, slot, index = which
    radius = batch.radius[rows, slot][:, None, None]
    px = (grid[0][rows] - batch.x[rows, slot][:, None, None]) / radius
    py = (grid[1][rows] - batch.y[rows, slot][:, None, None]) / radius
    distance = _outlined(DISTANCES[SHAPES[index]], batch.stroke)
    shadow_depth = distance(px - SHADOW_OFFSET[0], py - SHADOW_OFFSET[1])
    softness = np.clip(0.5 - shadow_depth / SHADOW_BLUR, 0.0, 1.0)
    shadow = SHADOW * softness * softness * (3.0 - 2.0 * softness)
    coverage = np.clip(0.5 - distance(px, py) * (radius / pitch), 0.0, 1.0)[..., None]
    below = picture[rows] * (1.0 - shadow[..., None])
    light = -LIGHT * 0.5 * (px + py)
    gloss = GLOSS * np.exp(-((px + 0.38) ** 2 + (py + 0.42) ** 2) / 0.22)
    fill = _lit(batch.colour[rows, slot][:, None, None, :], light)
    fill = fill + (1.0 - fill) * gloss[..., None]
    picture[rows] = below * (1.0 - coverage) + np.clip(fill, 0.0, 1.0) * coverage


def _outlined(
    distance: Callable[[Reals, Reals], Reals], stroke: float
) -> Callable[[Reals, Reals], Reals]:
    """Return the distance from the line of width `stroke` along the inside of a shape."""
    if not stroke:
        return distance
    return lambda x, y: np.abs(distance(x, y) + stroke / 2) - stroke / 2


def _lit(colour: Array, light: NDArray[np.floating]) -> Array:
    """Brighten or darken; the constant keeps a trace of light on black."""
    lit: Array = (colour + light[..., None] * (0.85 * colour + 0.10)).astype(np.float32)
    return lit


def _box(x: Reals, y: Reals, half_width: float, half_height: float) -> Reals:
    dx = np.abs(x) - half_width
    dy = np.abs(y) - half_height
    outside = np.hypot(np.maximum(dx, 0.0), np.maximum(dy, 0.0))
    return outside + np.minimum(np.maximum(dx, dy), 0.0)


def _circle(x: Reals, y: Reals) -> Reals:
    return np.hypot(x, y) - 1.0


def _square(x: Reals, y: Reals) -> Reals:
    return _box(x, y, 0.88, 0.88)


def _triangle(x: Reals, y: Reals) -> Reals:
    """Isosceles, apex up at (0, -1.05), base at y = 0.82 from -1.1 to 1.1."""
    rise, run = 1.87, 1.1
    norm = np.hypot(rise, run)
    side = (np.abs(x) * rise - (y + 1.05) * run) / norm
    distance: Reals = np.maximum(side, y - 0.82)
    return distance


def _star(x: Reals, y: Reals) -> Reals:
    """Five points: fold the plane into one half point, then measure to its edge."""
    sector = 2.0 * np.pi / 5.0
    angle = np.arctan2(x, -(y - 0.06))
    folded = np.abs((angle + sector / 2) % sector - sector / 2)
    length = np.hypot(x, y - 0.06)
    outer, inner = 1.15, 0.50
    ex = inner * np.cos(sector / 2) - outer
    ey = inner * np.sin(sector / 2)
    dx = length * np.cos(folded) - outer
    dy = length * np.sin(folded)
    distance: Reals = (ex * dy - ey * dx) * (-1.0 / np.hypot(ex, ey))
    return distance


def _heart(x: Reals, y: Reals) -> Reals:
    """A square on its corner and a disc on each of its two upper sides."""
    half = 0.86
    y = y - 0.10
    across = np.abs(x)
    lower = (across + np.abs(y) - half) * np.float32(np.sqrt(0.5))
    disc = np.hypot(across - half / 2, y + half / 2) - half * np.float32(np.sqrt(0.5))
    distance: Reals = np.minimum(lower, disc)
    return distance


def _ring(x: Reals, y: Reals) -> Reals:
    return np.abs(np.hypot(x, y) - 0.76) - 0.26


def _diamond(x: Reals, y: Reals) -> Reals:
    wide, tall = 0.80, 1.14
    distance: Reals = (np.abs(x) / wide + np.abs(y) / tall - 1.0) * (
        wide * tall / np.hypot(wide, tall)
    )
    return distance


def _hexagon(x: Reals, y: Reals) -> Reals:
    """Regular, with a corner left and right."""
    apothem = 0.90
    slanted = np.abs(x) * np.float32(np.sqrt(0.75)) + np.abs(y) * 0.5
    return np.maximum(slanted, np.abs(y)) - apothem


def _cross(x: Reals, y: Reals) -> Reals:
    return np.minimum(_box(x, y, 1.0, 0.33), _box(x, y, 0.33, 1.0))


def _moon(x: Reals, y: Reals) -> Reals:
    """A disc without a smaller disc that lies to the upper right."""
    distance: Reals = np.maximum(np.hypot(x, y) - 1.05, 0.85 - np.hypot(x - 0.52, y + 0.12))
    return distance


#: Signed distance of each shape in object radii.
DISTANCES: dict[str, Callable[[Reals, Reals], Reals]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "ring": _ring,
    "diamond": _diamond,
    "hexagon": _hexagon,
    "cross": _cross,
    "moon": _moon,
}
