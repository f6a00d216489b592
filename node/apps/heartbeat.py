"""What an app of somebody else tells of itself in a heartbeat (Livepeer wire, 7.2), read strictly."""

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from yarl import URL

from network.wire.session import Gpu

#: Of the whole body, in bytes: its longest fields are two of 1024.
MAX_HEARTBEAT_BYTES: Final = 16 * 1024
#: What a runner's id may be. It is its place in URLs, too.
RUNNER_ID: Final = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"

_MOST_TEXT_BYTES: Final = 1024
_MOST_USD: Final = 10**6
_MOST_DIGITS: Final = 40
#: Of ten, in dollars: a millionth of a millionth of a wei, which nobody means.
_SMALLEST_POWER: Final = -30
_MIB: Final = 2**20

Unit = Literal["hour", "720p", "fixed"]
Mode = Literal["single-shot", "persistent"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the app asks: US dollars for an hour, an hour of 720p video, or a call."""

    usd: Fraction
    unit: Unit


@dataclass(frozen=True, slots=True)
class Told:
    """What an app says of itself."""

    url: URL
    app: str
    mode: Mode
    capacity: int
    asked: Asked
    label: str = ""
    version: str = ""
    metadata: str = ""
    status: str = ""
    gpu: Gpu | None = None

    @property
    def is_ready(self) -> bool:
        """Whether it wants to be called."""
        return self.status in {"", "ready"}


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """One heartbeat; `runner_id` is empty where the sender does not know one yet."""

    runner_id: str
    told: Told


def read_heartbeat(body: bytes) -> Heartbeat:
    """Read a heartbeat's JSON. Raises ValueError with a sentence for the sender.

    Unknown fields are left alone: newer runners send more.
    """
    try:
        found = _Body.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in fault["loc"])
        what = fault["msg"].removeprefix("Value error, ")
        raise ValueError(f"{place}: {what}" if place else what) from None
    return Heartbeat(found.runner_id, found.told())


def _url(text: str) -> str:
    url = URL(text)
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError('write a whole address, for example "http://127.0.0.1:9000"')
    if url.user is not None or url.password is not None:
        raise ValueError("it must not hold a name or a password")
    if url.query_string or url.fragment:
        raise ValueError("it must end with its path")
    return text


def _short(text: str) -> str:
    if len(text.encode()) > _MOST_TEXT_BYTES:
        raise ValueError(f"it is longer than {_MOST_TEXT_BYTES} bytes of UTF-8")
    return text


def _usd(value: object) -> object:
    """Read the number as it was written: money is no float."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("write a number")  # noqa: TRY004  pydantic wants ValueError
    text = str(value)
    if len(text) > _MOST_DIGITS:
        raise ValueError("it has too many digits")
    try:
        number = Decimal(text)
    except ArithmeticError:
        raise ValueError("write a number") from None
    # Bounded before it becomes a fraction: "1e-999999" would be a million digits long.
    if not number.is_finite() or not 0 <= number <= _MOST_USD:
        raise ValueError(f"it must be from 0 to {_MOST_USD}")
    return Fraction(0) if number.adjusted() < _SMALLEST_POWER else Fraction(number)


def _numbered(value: object) -> object:
    """A device may be told by its number alone."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"id": str(value)[:20]}
    return value


_Text = Annotated[str, AfterValidator(_short)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", arbitrary_types_allowed=True)


class _Price(_Part):
    price: Annotated[Fraction, BeforeValidator(_usd)] = Fraction(0)
    currency: Literal["usd"] = "usd"
    unit: Unit = "hour"


class _Device(_Part):
    id: Annotated[str, Field(max_length=128)] = ""
    name: Annotated[str, Field(max_length=128)] = ""
    vram_mb: Annotated[int, Field(ge=0, le=2**31)] = 0


class _Body(_Part):
    runner_id: Annotated[str, Field(pattern=f"^({RUNNER_ID})?$")] = ""
    runner_url: Annotated[str, Field(max_length=2048), AfterValidator(_url)]
    app: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}$")]
    mode: Mode = "persistent"
    capacity: Annotated[int, Field(ge=0, le=256)] = 1
    price_info: _Price = _Price()
    label: _Text = ""
    version: Annotated[str, Field(max_length=128)] = ""
    metadata: _Text = ""
    status: Annotated[str, Field(pattern=r"^[ -~]{0,64}$")] = ""
    gpu: Annotated[_Device | None, BeforeValidator(_numbered)] = None

    def told(self) -> Told:
        gpu = self.gpu
        return Told(
            url=URL(self.runner_url),
            app=self.app,
            mode=self.mode,
            # Livepeer's orchestrators take a capacity of 0 for one that was not told.
            capacity=self.capacity or 1,
            asked=Asked(self.price_info.price, self.price_info.unit),
            label=self.label,
            version=self.version,
            metadata=self.metadata,
            status=self.status,
            gpu=None
            if gpu is None
            else Gpu(
                gpu.id, gpu.name, major=0, minor=0, memory_free=0, memory_total=gpu.vram_mb * _MIB
            ),
        )
