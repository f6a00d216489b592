"""Names of stored images. A name is the whole permission to read its image, so it is drawn, never derived."""

import re
from dataclasses import dataclass

from network.runtime.randomness import RandomBytes

#: 192 random bits, URL-safe: guessing one of a billion live images takes 2**162 tries on average.
NAME_BYTES = 24

_random = RandomBytes()
_PATH = re.compile(r"/stream/([0-9A-Za-z_-]{1,64})/([0-9A-Za-z_-]{1,64})\.png")


@dataclass(frozen=True, slots=True)
class ImageName:
    """One image of one request; neither part can hold a separator, a dot or an escape."""

    request: str
    name: str

    @property
    def path(self) -> str:
        """The image's path on the gateway, ready to follow a scheme and host."""
        return f"/stream/{self.request}/{self.name}.png"


def draw_name(request: str) -> ImageName:
    """An unguessable name for one more image of `request`."""
    return ImageName(request, _random.urlsafe(NAME_BYTES))


def parse_path(path: str) -> ImageName | None:
    """The name in a raw request path, or None for anything that could not have been given out.

    The path is matched undecoded: `%2e%2e`, doubled slashes and encoded letters never match.
    """
    match = _PATH.fullmatch(path)
    return ImageName(match[1], match[2]) if match else None
