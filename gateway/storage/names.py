"""Names of stored images. A name is the whole permission to read its image, so it is drawn, never derived."""

import re
from typing import Final, Literal, NamedTuple, cast, get_args

from network.runtime.randomness import RandomBytes

#: 192 random bits, URL-safe: guessing one of a billion live images takes 2**162 tries on average.
NAME_BYTES = 24

_random: Final = RandomBytes()
#: Suffixes of stored files.
Kind = Literal["png", "jpg", "webp"]
MEDIA: Final[dict[Kind, str]] = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}

_PART: Final = "[0-9A-Za-z_-]{1,64}"
_PATH: Final = re.compile(f"/stream/({_PART})/({_PART})\\.({'|'.join(get_args(Kind))})")


class ImageName(NamedTuple):
    """One image of one request; neither part can hold a separator, a dot or an escape."""

    request: str
    name: str
    kind: Kind = "png"

    @property
    def path(self) -> str:
        """The image's path on the gateway, ready to follow a scheme and host."""
        return f"/stream/{self.request}/{self.file}"

    @property
    def file(self) -> str:
        return f"{self.name}.{self.kind}"

    @property
    def media(self) -> str:
        """The content type."""
        return MEDIA[self.kind]


def draw_name(request: str, kind: Kind = "png") -> ImageName:
    """An unguessable name for one more image of `request`."""
    return ImageName(request, _random.urlsafe(NAME_BYTES), kind)


def parse_path(path: str) -> ImageName | None:
    """The name in a raw request path, or None for anything that could not have been given out.

    The path is matched undecoded: `%2e%2e`, doubled slashes and encoded letters never match.
    """
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    return ImageName(match[1], match[2], cast("Kind", match[3]))
