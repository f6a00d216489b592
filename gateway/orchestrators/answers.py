"""What an orchestrator sent back, read without trust: result images, and the words of a refusal.

An answer is megabytes of base64 around a few bytes of JSON. The payloads are cut out by position and
decoded where they lie; only the small rest goes through a JSON parser.
"""

import binascii
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction

import msgspec
import pybase64

from gateway.orchestrators.image_files import UnsoundImageError, check_pixels, sound_png
from network.errors import LimnerError
from network.units import Wei
from network.wire.safety import REFUSED_AS_UNSAFE, Safety, told_safety

_PNG_URL = b'"data:image/png;base64,'
_LONGEST_TEXT = 500
_LONGEST_URL = 2048
#: What is told of the images, before their bytes.
_LONGEST_LINE = 16 * 1024


class Refused(Enum):
    """What an orchestrator's refusal means for us."""

    #: No free place. Ask another, think no worse of it.
    BUSY = "busy"
    #: Its token or ticket parameters are no longer good. Refresh them, ask it again once.
    CREDENTIALS = "credentials"
    #: The request itself is wrong. Tell the client, ask nobody else.
    CLIENT_FAULT = "client fault"
    #: It found the images unsafe. Tell the client; others are not asked to draw the same.
    UNSAFE = "unsafe"
    #: The price we expected is not its price. Refresh, ask another meanwhile.
    PRICE = "price"
    #: It counts less of a balance for us than we do. Pay anew, ask it again once.
    BALANCE = "balance"


@dataclass(frozen=True, slots=True)
class Statement:
    """What an answer's headers say of our money there, in wei; only our own nodes tell."""

    credited: Fraction
    charged: Wei
    #: What became of the job, in its own word; "" where that was not asked.
    state: str = field(default="", compare=False)

    @property
    def is_delivered(self) -> bool:
        return self.state == "delivered"


class _Unserved(LimnerError):  # noqa: N818  an outcome, not an error
    """What came of asking, where it is no delivery."""

    #: A whole answer came: whatever the orchestrator did with the payment, it has done.
    was_answered: bool = False
    #: HTTP status of that answer, 0 without one.
    status: int = 0
    statement: Statement | None = None


class OrchestratorRefused(_Unserved):
    """The orchestrator said no in words we know; no fault of its own."""

    def __init__(self, kind: Refused, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text


class OrchestratorFailed(_Unserved):
    """The orchestrator did not answer as the wire demands, or not in time."""


class DeliveredWrongly(OrchestratorFailed):
    """The orchestrator delivered something else than was asked, or charged more than was agreed."""


class CallRefused(OrchestratorFailed):
    """An information call was answered with a refusal: the connection and the peer work."""


class OrchestratorUnreachable(OrchestratorFailed):
    """No connection to the orchestrator, or it broke."""


class OrchestratorLost(OrchestratorFailed):
    """The link to it broke off in the middle: what was sent may have arrived."""


class Picture(msgspec.Struct, frozen=True):
    """One checked result image."""

    png: bytes
    seed: int
    safety: Safety


class Expected(msgspec.Struct, frozen=True):
    """What the answer to a request must look like."""

    images: int
    width: int
    height: int
    #: The first image's seed; the others count up.
    seed: int

    @property
    def largest_image(self) -> int:
        """Bytes. Four bytes a pixel that do not compress at all, and room for metadata."""
        return self.width * self.height * 4 * 17 // 16 + 65_536

    @property
    def largest_body(self) -> int:
        """Bytes of a JSON answer, base64 and field names included."""
        return self.images * (self.largest_image * 4 // 3 + 4096) + 65_536


@dataclass(frozen=True, slots=True)
class Link:
    """An image the orchestrator keeps for us to fetch."""

    url: str


class Medium(msgspec.Struct, frozen=True):
    """One entry of `images`, not checked against what was asked."""

    image: bytes | Link
    seed: int
    safety: Safety


class _Entry(msgspec.Struct):
    #: The index of a payload that was cut out, or a URL that was left in; of a part its bytes.
    url: int | str
    seed: int
    nsfw: bool
    #: Only our own node says this; from others it may be anything.
    safety: object = None


class _Answer(msgspec.Struct):
    images: list[_Entry]


_decoder = msgspec.json.Decoder(_Answer)


def parse_parts(body: bytes | bytearray, images: int) -> tuple[Medium, ...]:
    """The same of a body of `network.wire.image_parts`; `parse_answer` for a faster link."""
    end = body.find(b"\n", 0, _LONGEST_LINE)
    answer = _read(body[: max(end, 0)], images)
    view, position = memoryview(body), end + 1
    media: list[Medium] = []
    for entry in answer.images:
        size = entry.url
        if not isinstance(size, int) or not 0 < size <= len(body) - position:
            raise DeliveredWrongly("its answer has not the images that it tells of")
        image = bytes(view[position : position + size])
        media.append(Medium(image, entry.seed, told_safety(entry.safety, nsfw=entry.nsfw)))
        position += size
    if position != len(body):
        raise DeliveredWrongly("its answer goes on after its images")
    return tuple(media)


def parse_answer(body: bytes | bytearray, images: int) -> tuple[Medium, ...]:
    """Read `{"images": [{"url", "seed", "nsfw"}]}` (Livepeer wire, ImageResponse) of `images` entries.

    Data URLs must hold PNG. `safety` beside `nsfw` is optional. Raises OrchestratorFailed.
    """
    rest, payloads = _cut_out(body, images)
    answer = _read(rest, images)
    indices = [entry.url for entry in answer.images if isinstance(entry.url, int)]
    # Numbers of its own in the place of URLs must not stand for a payload twice.
    if indices != list(range(len(payloads))):
        raise DeliveredWrongly("its image urls are not strings")
    return tuple(
        Medium(
            _decoded(payloads[entry.url]) if isinstance(entry.url, int) else _link(entry.url),
            entry.seed,
            told_safety(entry.safety, nsfw=entry.nsfw),
        )
        for entry in answer.images
    )


def check_pictures(media: tuple[Medium, ...], expected: Expected) -> tuple[Picture, ...]:
    """The images themselves, links having been fetched. Raises OrchestratorFailed."""
    pictures = []
    for index, medium in enumerate(media):
        if isinstance(medium.image, Link):
            raise DeliveredWrongly("it sent a link in place of an image")
        png = checked_png(medium.image, expected)
        if medium.seed != expected.seed + index:
            raise DeliveredWrongly(
                f"image {index} has seed {medium.seed} where {expected.seed + index} was asked"
            )
        pictures.append(Picture(png, medium.seed, medium.safety))
    return tuple(pictures)


def check_all_pixels(pictures: tuple[Picture, ...]) -> None:
    """Inflate checked images; for a thread. Raises OrchestratorFailed."""
    try:
        for picture in pictures:
            check_pixels(picture.png)
    except UnsoundImageError as error:
        raise DeliveredWrongly(f"an image {error}") from None


def checked_png(data: bytes, expected: Expected) -> bytes:
    """The image as it may be passed on: a whole PNG of the size asked, and nothing beside its pixels.

    Raises OrchestratorFailed. Pixels are not decoded.
    """
    if len(data) > expected.largest_image:
        raise DeliveredWrongly(f"an image of {len(data)} bytes is larger than its pixels allow")
    try:
        return sound_png(data, expected.width, expected.height)
    except UnsoundImageError as error:
        raise DeliveredWrongly(f"an image {error}") from None


def printable(text: str, most: int) -> str:
    """A stranger's words, fit for a log, a header and a database."""
    if not text.isprintable():
        text = "".join(character for character in text if character.isprintable())
    return text[:most].strip()


def refusal(status: int, text: str) -> OrchestratorRefused | OrchestratorFailed:
    """Sort a refusal by its words first, as Livepeer's gateways do, then by its status."""
    shown = printable(" ".join(text.split()), _LONGEST_TEXT)
    low = shown.lower()
    if "insufficient capacity" in low or "orchestratorcapped" in low:
        return OrchestratorRefused(Refused.BUSY, shown)
    said = low.find(_SAID_400)
    reason = shown if said < 0 else shown[said + len(_SAID_400) :].lstrip(": ")
    is_unsafe = REFUSED_AS_UNSAFE in low
    if said >= 0 or is_unsafe:
        return OrchestratorRefused(Refused.UNSAFE if is_unsafe else Refused.CLIENT_FAULT, reason)
    kind = next((kind for phrase, kind in _MENDABLE.items() if phrase in low), None)
    if kind is not None:
        return OrchestratorRefused(kind, shown)
    if "price" in low and status in _PRICE_STATUSES:
        return OrchestratorRefused(Refused.PRICE, shown)
    if status in _CLIENT_STATUSES and not any(phrase in low for phrase in _PAYMENT_PHRASES):
        return OrchestratorRefused(Refused.CLIENT_FAULT, shown)
    return OrchestratorFailed(f"it answered {status}: {shown or 'nothing'}")


_SAID_400 = "returned 400"
#: What a newer token, a newer quote or more tickets mend.
_MENDABLE = {
    "auth token": Refused.CREDENTIALS,
    "ticketparams expired": Refused.CREDENTIALS,
    "invalid recipientrand": Refused.CREDENTIALS,
    "invalid ticket sendernonce": Refused.CREDENTIALS,
    "insufficient balance": Refused.BALANCE,
}
_PRICE_STATUSES = frozenset({400, 402})
_CLIENT_STATUSES = frozenset({400, 413, 422})
#: Answers of status 400 that are about our payment, not about the client's request.
_PAYMENT_PHRASES = ("ticket", "payment", "unlock soon")


def _read(told: bytes | bytearray, images: int) -> _Answer:
    try:
        answer = _decoder.decode(told)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DeliveredWrongly(f"its answer is not the JSON of images: {_short(error)}") from None
    if len(answer.images) != images:
        raise DeliveredWrongly(f"it sent {len(answer.images)} images where {images} were asked")
    return answer


def _cut_out(body: bytes | bytearray, most: int) -> tuple[bytes, list[memoryview]]:
    """The body with each PNG data URL replaced by its index, and the base64 of each."""
    view = memoryview(body)
    pieces: list[bytes | memoryview] = []
    payloads: list[memoryview] = []
    position = 0
    while (start := body.find(_PNG_URL, position)) >= 0:
        end = body.find(b'"', start + len(_PNG_URL))
        if end < 0 or len(payloads) == most:
            break
        pieces += (view[position:start], b"%d" % len(payloads))
        payloads.append(view[start + len(_PNG_URL) : end])
        position = end + 1
    pieces.append(view[position:])
    return b"".join(pieces), payloads


def _decoded(payload: memoryview) -> bytes:
    try:
        return pybase64.b64decode(payload, validate=True)
    except binascii.Error:
        raise DeliveredWrongly("an image is not base64") from None


def _link(url: str) -> Link:
    if url[:5].lower() == "data:":
        raise DeliveredWrongly(f"an image is {url[:30]!r}..., not a PNG data URL")
    if len(url) > _LONGEST_URL:
        raise DeliveredWrongly("an image url is too long")
    return Link(url)


def _short(error: Exception) -> str:
    return printable(str(error), 200)
