"""What `limner/shapes` can draw: names, synonyms, palette, and the rule for held-out scenes."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

#: The shapes in the order of their indices.
SHAPES: Final = (
    "circle",
    "square",
    "triangle",
    "star",
    "heart",
    "ring",
    "diamond",
    "hexagon",
    "cross",
    "moon",
)

#: sRGB bytes of each colour name. Neighbouring names keep a distance that survives shading.
PALETTE: Final = {
    "red": (224, 40, 48),
    "green": (40, 158, 72),
    "blue": (36, 88, 216),
    "yellow": (252, 212, 36),
    "orange": (246, 126, 24),
    "purple": (124, 56, 178),
    "pink": (250, 148, 192),
    "cyan": (64, 204, 228),
    "black": (26, 26, 32),
    "white": (246, 246, 246),
    "gray": (138, 142, 150),
    "brown": (126, 76, 42),
}
COLOURS: Final = tuple(PALETTE)

#: (12, 3) float32, sRGB in 0..1, in the order of COLOURS.
PALETTE_RGB: Final[NDArray[np.float32]] = (
    np.array(list(PALETTE.values()), dtype=np.float32) / 255.0
)

#: Other words for a shape; the first name stays by far the most frequent one in captions.
SHAPE_SYNONYMS: Final = {
    "circle": ("disc", "disk", "ball", "dot"),
    "square": ("box",),
    "ring": ("donut", "hoop"),
    "diamond": ("rhombus",),
    "cross": ("plus", "plus sign"),
    "moon": ("crescent", "crescent moon"),
    "heart": ("heart shape",),
    "star": ("five pointed star",),
}
COLOUR_SYNONYMS: Final = {
    "gray": ("grey",),
    "purple": ("violet",),
    "cyan": ("turquoise", "light blue"),
    "blue": ("dark blue",),
    "red": ("crimson", "scarlet"),
    "yellow": ("golden",),
}
SIZES: Final = ("small", "medium", "large")
SIZE_SYNONYMS: Final = {
    "small": ("little", "tiny"),
    "medium": ("medium sized",),
    "large": ("big", "huge"),
}

#: Name of a position and its direction from the centre as (x, y), y downwards.
POSITIONS: Final = {
    "center": (0, 0),
    "left": (-1, 0),
    "right": (1, 0),
    "top": (0, -1),
    "bottom": (0, 1),
    "top left": (-1, -1),
    "top right": (1, -1),
    "bottom left": (-1, 1),
    "bottom right": (1, 1),
}

#: The colour of a shape whose caption names none.
DEFAULT_COLOURS: Final = {
    "circle": "red",
    "square": "blue",
    "triangle": "green",
    "star": "yellow",
    "heart": "red",
    "ring": "orange",
    "diamond": "cyan",
    "hexagon": "purple",
    "cross": "green",
    "moon": "yellow",
}


def is_held_out(shape: int, colour: int, background: int) -> bool:
    """Tell whether a combination of indices is kept out of all training scenes.

    One combination in eight is held out. Every pair of two attributes still occurs in training,
    so a held-out scene asks the model to combine what it knows in a way that it never saw.
    """
    return (3 * shape + 5 * colour + 7 * background) % 8 == 0


def default_background(colour: str) -> str:
    """Return the background of a caption that names none."""
    return "gray" if colour == "white" else "white"


def default_colour(shape: str, background: str) -> str:
    """Return the object colour of a caption that names none."""
    preferred = DEFAULT_COLOURS[shape]
    return "white" if preferred == background else preferred
