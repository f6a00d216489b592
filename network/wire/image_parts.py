"""Images between our own gateway and node, as they are instead of in base64.

A gateway that takes them says so by `Accept`; a node that does not know the word answers in JSON as
ever. The body is one line, the JSON of Livepeer's ImageResponse with each image's size in bytes in
the place of its `url`, and after it the images in that order, with nothing between them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

CONTENT_TYPE: Final = "application/vnd.limner.images"
#: What a gateway says that takes both.
ACCEPT: Final = f"{CONTENT_TYPE}, application/json"


def are_accepted(accept: str) -> bool:
    """Whether the `Accept` of a request names them."""
    offered = (one.partition(";")[0].strip().lower() for one in accept.split(","))
    return CONTENT_TYPE in offered


def encode(images: Sequence[tuple[bytes, Mapping[str, Any]]]) -> bytes:
    """Each image with what is told of it beside its size."""
    entries = [{"url": len(image), **told} for image, told in images]
    line = orjson.dumps({"images": entries}, option=orjson.OPT_APPEND_NEWLINE)
    return b"".join((line, *(image for image, _ in images)))
