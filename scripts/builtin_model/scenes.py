"""Chooses random scenes and the captions that describe them."""

from dataclasses import dataclass

import numpy as np

from scripts.builtin_model.rendering import SceneBatch
from scripts.builtin_model.vocabulary import (
    COLOUR_SYNONYMS,
    COLOURS,
    PALETTE_RGB,
    POSITIONS,
    SHAPE_SYNONYMS,
    SHAPES,
    SIZE_SYNONYMS,
    SIZES,
    default_background,
    default_colour,
    is_held_out,
)

#: Radius as a part of the shorter side, for a centred object and for one moved aside.
RADII = {
    "small": (0.15, 0.13),
    "medium": (0.27, 0.20),
    "large": (0.38, 0.27),
}
PAIR_RADIUS = 0.19
FULL_SCALE = 512  # pixels of the shorter side up to which objects grow with the picture
MARGIN = 0.07  # between an object and the border, as a part of the shorter side

DECORATION = 0.05  # share of captions with a word that changes nothing
KINDS = ("a picture of ", "a drawing of ", "an image of ", "an icon of ", "a photo of ")
ENDINGS = (", high quality", ", highly detailed", ", 4k", ", digital art", ", minimalist")


#: Circle and hexagon differ by few pixels, so the loss alone says little about which is which.
SHAPE_SHARES = np.array([2.0 if name in ("circle", "hexagon") else 1.0 for name in SHAPES])
SHAPE_SHARES /= SHAPE_SHARES.sum()


@dataclass(frozen=True)
class Mix:
    """How often a stage shows each kind of scene; probabilities in 0..1."""

    pairs: float = 0.0
    positioned: float = 0.0
    sized: float = 0.0
    omitted: float = 0.0  # a caption without colour or without background
    synonyms: float = 0.1


@dataclass(frozen=True)
class Thing:
    """One object: indices into SHAPES and COLOURS, and names of its size and position."""

    shape: int
    colour: int
    size: str = "medium"
    position: str = "center"


@dataclass(frozen=True)
class Scene:
    """What a caption says, without the variation that the seed decides."""

    things: tuple[Thing, ...]
    background: int


def choose_scene(rng: np.random.Generator, mix: Mix) -> Scene:
    """Choose a scene that is not held out."""
    if rng.random() < mix.pairs:
        return _choose_pair(rng)
    while True:
        shape, colour, background = _choose_triple(rng)
        size = str(rng.choice(SIZES)) if rng.random() < mix.sized else "medium"
        moved = rng.random() < mix.positioned
        position = str(rng.choice(list(POSITIONS))) if moved else "center"
        if not is_held_out(shape, colour, background):
            return Scene((Thing(shape, colour, size, position),), background)


def _choose_triple(rng: np.random.Generator) -> tuple[int, int, int]:
    shape = int(rng.choice(len(SHAPES), p=SHAPE_SHARES))
    colour, background = rng.choice(len(COLOURS), 2, replace=False)
    return shape, int(colour), int(background)


def _choose_pair(rng: np.random.Generator) -> Scene:
    """Two objects side by side, the first one on the left."""
    while True:
        shapes = rng.integers(len(SHAPES), size=2)
        first, second, background = (int(c) for c in rng.choice(len(COLOURS), 3, replace=False))
        left = Thing(int(shapes[0]), first, "medium", "left")
        right = Thing(int(shapes[1]), second, "medium", "right")
        if not any(is_held_out(t.shape, t.colour, background) for t in (left, right)):
            return Scene((left, right), background)


def lay_out(scenes: list[Scene], width: int, height: int, rng: np.random.Generator) -> SceneBatch:
    """Give each scene the variation that its caption leaves open."""
    slots = max(len(scene.things) for scene in scenes)
    count = len(scenes)
    shape = np.full((count, slots), -1, dtype=np.int64)
    x, y, radius = (np.ones((count, slots), dtype=np.float32) for _ in range(3))
    colour = np.zeros((count, slots, 3), dtype=np.float32)
    background = np.zeros((count, 3), dtype=np.float32)
    for row, scene in enumerate(scenes):
        background[row] = PALETTE_RGB[scene.background] + rng.uniform(-0.02, 0.02, 3)
        for slot, thing in enumerate(scene.things):
            shape[row, slot] = thing.shape
            placed = _place(thing, (width, height), rng, paired=len(scene.things) > 1)
            x[row, slot], y[row, slot], radius[row, slot] = placed
            colour[row, slot] = PALETTE_RGB[thing.colour] + rng.uniform(-0.02, 0.02, 3)
    gradient = rng.uniform(0.04, 0.14, count).astype(np.float32)
    return SceneBatch(width, height, shape, x, y, radius, colour, background, gradient)


def _place(
    thing: Thing, size: tuple[int, int], rng: np.random.Generator, *, paired: bool
) -> tuple[float, float, float]:
    """Return centre and radius in pixels."""
    width, height = size
    shorter = min(size)
    direction = POSITIONS[thing.position]
    centred, aside = RADII[thing.size]
    share = PAIR_RADIUS if paired else (centred if direction == (0, 0) else aside)
    radius = share * _reference_side(shorter) * rng.uniform(0.93, 1.07)
    room_x = width / 2 - radius * 1.1 - MARGIN * shorter
    room_y = height / 2 - radius * 1.1 - MARGIN * shorter
    jitter = rng.uniform(-0.02, 0.02, 2) * shorter
    if paired:
        room_x = width / 4
    x = width / 2 + direction[0] * room_x + jitter[0]
    y = height / 2 + direction[1] * room_y + jitter[1]
    return x, y, radius


def _reference_side(shorter: int) -> float:
    """Return what radii are a part of: beyond 512 pixels it grows with the square root.

    An object of 1024 pixels would ask the network for four times the scale of one of 256.
    """
    return float(shorter) if shorter <= FULL_SCALE else float(np.sqrt(shorter * FULL_SCALE))


def describe(scene: Scene, rng: np.random.Generator, mix: Mix) -> str:
    """Write one of the captions that fit a scene."""
    if len(scene.things) > 1:
        return _finish(_describe_pair(scene, rng, mix), rng)
    thing = scene.things[0]
    background = COLOURS[scene.background]
    shape, colour = SHAPES[thing.shape], COLOURS[thing.colour]
    says_background = rng.random() >= mix.omitted or background != default_background(colour)
    says_colour = rng.random() >= mix.omitted or colour != default_colour(shape, background)
    noun = _name_thing(thing, rng, mix, says_colour=says_colour)
    place = _name_position(thing.position, rng)
    if not says_background:
        return _finish(f"{with_article(noun)}{place}", rng)
    ground = _synonym(background, COLOUR_SYNONYMS, rng, mix)
    return _finish(_join(noun, place, ground, rng), rng)


def _join(noun: str, place: str, ground: str, rng: np.random.Generator) -> str:
    """Put object, place and background into one of the sentence patterns."""
    thing = with_article(noun)
    scenery = f"{with_article(ground)} background"
    patterns = (
        f"{thing}{place} on {scenery}",
        f"{noun}{place}, {ground} background",
        f"{noun}{place} on {ground}",
        f"{ground} background with {thing}{place}",
        f"{thing} on {scenery}{place and ',' + place}",
        f"{thing}{place} against {scenery}",
        f"{thing}{place} in front of {scenery}",
        f"{noun} {ground} background{place}",
    )
    return str(rng.choice(patterns, p=(0.34, 0.16, 0.12, 0.1, 0.1, 0.06, 0.06, 0.06)))


def _describe_pair(scene: Scene, rng: np.random.Generator, mix: Mix) -> str:
    first, second = (
        with_article(_name_thing(thing, rng, mix, says_colour=True)) for thing in scene.things
    )
    ground = _synonym(COLOURS[scene.background], COLOUR_SYNONYMS, rng, mix)
    joint = rng.choice(
        (" and ", " next to ", " to the left of ", " beside "), p=(0.7, 0.1, 0.1, 0.1)
    )
    match int(rng.choice(3, p=(0.6, 0.25, 0.15))):
        case 0:
            return f"{first}{joint}{second} on {with_article(ground)} background"
        case 1:
            return f"{first}{joint}{second}, {ground} background"
        case _:
            return f"{first} on the left and {second} on the right, {ground} background"


def _name_thing(thing: Thing, rng: np.random.Generator, mix: Mix, *, says_colour: bool) -> str:
    words = []
    if thing.size != "medium" or rng.random() < DECORATION:
        words.append(_synonym(thing.size, SIZE_SYNONYMS, rng, mix))
    if says_colour:
        words.append(_synonym(COLOURS[thing.colour], COLOUR_SYNONYMS, rng, mix))
    words.append(_synonym(SHAPES[thing.shape], SHAPE_SYNONYMS, rng, mix))
    return " ".join(words)


def _name_position(position: str, rng: np.random.Generator) -> str:
    """Return a phrase that begins with a space, or nothing for most centred objects."""
    if position == "center":
        phrases = (" in the center", " in the middle", " in the centre")
        return str(rng.choice(phrases)) if rng.random() < DECORATION else ""
    if " " in position:
        phrases = (f" in the {position} corner", f" in the {position}", f" at the {position}")
        return str(rng.choice(phrases, p=(0.6, 0.25, 0.15)))
    if position in ("top", "bottom"):
        return str(rng.choice((f" at the {position}", f" on the {position}")))
    return str(rng.choice((f" on the {position}", f" on the {position} side")))


def _synonym(
    word: str, synonyms: dict[str, tuple[str, ...]], rng: np.random.Generator, mix: Mix
) -> str:
    if word in synonyms and rng.random() < mix.synonyms:
        return str(rng.choice(synonyms[word]))
    return word


def with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeio" else f"a {noun}"


def _finish(caption: str, rng: np.random.Generator) -> str:
    """Add, now and then, the words that people put around a description."""
    if caption.startswith(("a ", "an ")) and rng.random() < DECORATION:
        caption = str(rng.choice(KINDS)) + caption
    if rng.random() < DECORATION:
        caption += str(rng.choice(ENDINGS))
    return caption
