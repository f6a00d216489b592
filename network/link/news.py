"""What a node pushes when it changes: free places and warmth, and whether its terms are others. Pure."""

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

from network.errors import WireError
from network.link.frames import LARGEST_PUSH

#: More than any model has; a number that a stranger may name must have an end.
_MOST_PLACES: Final = 1_000_000

_Places = Annotated[int, msgspec.Meta(ge=0, le=_MOST_PLACES)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class ModelNews(msgspec.Struct, frozen=True, array_like=True):
    """One model now.

    `free` places and `ours`, the jobs of the gateway that is told, are of one moment: their sum is what
    others leave to this gateway, whatever it has sent or had back since.
    """

    warm: bool
    free: _Places
    ours: _Places


class News(msgspec.Struct, frozen=True):
    """The whole state; the newest news replace older ones."""

    models: Mapping[_Name, ModelNews]
    #: Other than before when prices, models or the willingness to work changed: ask anew.
    terms: Annotated[str, msgspec.Meta(max_length=128)]


def write_news(news: News) -> bytes:
    """A push. Raises WireError for more models than one has room for."""
    body = msgspec.json.encode(news)
    if len(body) > LARGEST_PUSH:
        raise WireError(f"news of {len(news.models)} models are {len(body)} bytes long")
    return body


def read_news(body: bytes) -> News:
    """Raises WireError."""
    try:
        return msgspec.json.decode(body, type=News)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise WireError("a push is no news of a node") from None
