"""What an operator may set. Every default is explained in `configs/node.toml`."""

import ipaddress
import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    TypeAdapter,
    model_validator,
)

from network.chain.settings import OFFCHAIN, ChainSettings, PriceFeedSettings
from network.errors import ConfigError
from network.identity import parse_address
from network.payments.pricing import PAYERS_MAX_TICKET_VALUE
from network.runtime.settings import PriceSetting, RateSetting
from network.units import Address, Wei, parse_wei
from node.config.profiles import SCHEDULERS, Value

ENVIRONMENT_PREFIX: Final = "LIMNER_NODE__"
_DATABASE_FILE: Final = "node.sqlite"
_PRINTABLE: Final = re.compile("[!-~]+")
_DEVICE: Final = r"^(auto|cpu|cuda(:[0-9]{1,2})?)$"
_UNSAFE_LABELS: Final = ("nsfw", "unsafe", "explicit", "porn", "hentai", "sexy", "nudity")
_SIZE: Final = re.compile("([0-9]{1,4})x([0-9]{1,4})")


def _parsed_wei(value: object) -> object:
    if isinstance(value, bool | float):
        # pydantic turns a ValueError, and only that, into an error naming the setting
        raise ValueError('write wei as text or a whole number, for example "3000 gwei"')  # noqa: TRY004
    return parse_wei(value) if isinstance(value, str) else value


def _parsed_bytes(value: object) -> object:
    if value is None or value == "auto":
        return None
    try:
        return int(TypeAdapter(ByteSize).validate_python(value, strict=not isinstance(value, str)))
    except ValueError:
        raise ValueError(
            f'{str(value)[:40]!r} is no amount of memory; write it as in "16 GiB", or "auto"'
        ) from None


def _parsed_address(value: object) -> object:
    return parse_address(value) if isinstance(value, str) else value


def _http_url(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in {"http", "https"} or not url.hostname or not _PRINTABLE.fullmatch(text):
        raise ValueError('write a whole address, for example "https://node.example.org:8936"')
    return text.rstrip("/")


def _link_url(text: str) -> str:
    url = urlsplit(text)
    is_whole = url.scheme == "wss" and url.hostname and not url.username and not url.query
    if not is_whole or not _PRINTABLE.fullmatch(text):
        raise ValueError(
            'write a whole address, for example "wss://gateway.example.org:8939/link"'
        )
    return text


def _listen_url(text: str) -> str:
    url = urlsplit(_http_url(text))
    if url.path or url.query or url.port is None:
        raise ValueError(
            'write scheme, host and port, for example "https://127.0.0.1:8936"; port 0 takes a '
            "free one, http:// listens without TLS"
        )
    return text.rstrip("/")


def _listen_address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    is_port = port.isdecimal() and int(port) <= 65535  # noqa: PLR2004
    if not colon or not host or "/" in host or not is_port:
        raise ValueError(
            'write "host:port", for example "127.0.0.1:7935"; port 0 takes a free one'
        )
    return text


def _home(path: Path) -> Path:
    return path.expanduser()


def _checker(text: str) -> str:
    return str(Path(text).expanduser()) if text.startswith("~") else text


WeiAmount = Annotated[Wei, BeforeValidator(_parsed_wei), Field(ge=1)]
Account = Annotated[Address, BeforeValidator(_parsed_address)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
File = Annotated[Path, AfterValidator(_home)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class LogSettings(_Section):
    """What is written to stderr, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class KeystoreSettings(_Section):
    """What opens the node's identity; both empty: a passphrase file is made beside it."""

    passphrase: str = Field(default="", repr=False)
    passphrase_file: File | None = None


class ServerSettings(_Section):
    """How the listener treats connections."""

    max_connections: Count = 1024
    header_timeout_seconds: Seconds = 15.0
    body_timeout_seconds: Seconds = 30.0
    idle_timeout_seconds: Seconds = 600.0
    shutdown_seconds: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 10.0


class QueueSettings(_Section):
    """How long a line may get in front of a busy model."""

    max_waiting: Annotated[int, Field(ge=0, le=10_000)] = 16
    max_wait_seconds: Seconds = 20.0


class RepeatSettings(_Section):
    """How much of what was delivered is kept in memory, for gateways that were cut off from it."""

    #: Bytes of images; 0 keeps none.
    keep_bytes: Annotated[int, BeforeValidator(_parsed_bytes), Field(ge=0)] = 64 * 1024 * 1024
    keep_seconds: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 120.0


class LimitSettings(_Section):
    """Bounds of a request, checked before any work and before pricing."""

    min_side: Annotated[int, Field(ge=8, le=8192)] = 64
    max_width: Annotated[int, Field(ge=8, le=8192)] = 1024
    max_height: Annotated[int, Field(ge=8, le=8192)] = 1024
    max_steps: Annotated[int, Field(ge=1, le=1000)] = 100
    max_images: Annotated[int, Field(ge=1, le=64)] = 4
    max_prompt_chars: Annotated[int, Field(ge=1, le=100_000)] = 2000
    max_guidance: Annotated[float, Field(ge=1, le=1000, allow_inf_nan=False)] = 30.0
    max_loras: Annotated[int, Field(ge=0, le=4)] = 4
    max_body_bytes: Annotated[int, Field(ge=1024, le=4 * 1024 * 1024)] = 256 * 1024


class DatabaseSettings(_Section):
    """Where the journal is kept; an empty URL is a SQLite file in the data directory."""

    url: str = ""
    synchronous: Literal["FULL", "NORMAL"] = "FULL"


class EngineSettings(_Section):
    """Where and how images are made. `threads` 0 is one a core; compiling has no effect on CPUs.

    The budgets are bytes of weights; None, which is written "auto", leaves them to the engine.
    """

    device: Annotated[str, Field(pattern=_DEVICE)] = "auto"
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    memory_budget: Annotated[PositiveInt | None, BeforeValidator(_parsed_bytes)] = None
    host_memory_budget: Annotated[NonNegativeInt | None, BeforeValidator(_parsed_bytes)] = None
    compile: Literal["auto", "off"] = "auto"
    fuse_projections: bool = False
    lora_cache_mib: Count = 1024
    max_lora_mib: Count = 512
    max_lora_rank: Annotated[int, Field(ge=1, le=4096)] = 256


class SafetySettings(_Section):
    """Who looks at finished images, and what becomes of those it objects to."""

    checker: Annotated[str, Field(min_length=1), AfterValidator(_checker)] = "opennsfw"
    policy: Literal["flag", "blur", "refuse"] = "flag"
    threshold: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.5
    device: Annotated[str, Field(pattern=_DEVICE)] = "auto"
    unsafe_labels: tuple[Annotated[str, Field(min_length=1)], ...] = _UNSAFE_LABELS
    always: bool = False


def _parsed_size(value: object) -> object:
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value)
    if found is None:
        raise ValueError('write width and height in pixels, for example "1024x576"')
    return int(found[1]), int(found[2])


def _scheduler(name: str) -> str:
    if name not in SCHEDULERS:
        raise ValueError(f"no such scheduler; there are {', '.join(sorted(SCHEDULERS))}")
    return name


Side = Annotated[int, Field(ge=8, le=8192)]


class ProfileSettings(_Section):
    """A model's own defaults, in place of what is known of it; see `node.config.profiles`."""

    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    guidance: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] | None = None
    size: Annotated[tuple[Side, Side], BeforeValidator(_parsed_size)] | None = None
    scheduler: Annotated[str, AfterValidator(_scheduler)] | None = None
    scheduler_options: dict[str, Value] = Field(default_factory=dict)
    fixed: frozenset[Literal["steps", "guidance"]] = frozenset()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.scheduler_options and self.scheduler is None:
            raise ValueError("scheduler_options are for a scheduler; name it, too")
        for name in sorted(self.fixed):
            if getattr(self, name) is None:
                raise ValueError(f'"{name}" is fixed, but has no value; set it, too')
        return self


class ModelSettings(_Section):
    """One model to serve. Without a path it is looked for in `models_dir`."""

    id: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[!-~]+$")]
    path: File | None = None
    revision: Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z._/-]{0,199}$")] = "main"
    price: PriceSetting | None = None
    capacity: Annotated[int, Field(ge=1, le=256)] = 4
    warm: bool = True
    #: None: the built-in model is, others are not.
    deterministic: bool | None = None
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    #: None: what is known of the model, if anything is
    profile: ProfileSettings | None = None


class PaymentSettings(_Section):
    """What tickets are made out for; only where `chain.network` names a chain. Amounts in wei."""

    #: A ticket's expected value. Payers refuse more than 3000 gwei by default.
    max_ticket_value: WeiAmount = PAYERS_MAX_TICKET_VALUE
    #: What a winning ticket pays; None leaves it to gas and the sender's reserve.
    max_face_value: WeiAmount | None = None
    redeem_gas: Annotated[int, Field(ge=21_000, le=30_000_000)] = 1_200_000
    #: Looked at in one payment: each takes a signature to check.
    max_tickets: Annotated[int, Field(ge=1, le=600)] = 600


class RedemptionSettings(_Section):
    """When winning tickets are redeemed, and for how much gas."""

    #: Wei per gas. Tickets wait while it costs more; near their deadline they go at any price below
    #: what they pay.
    max_gas_price: WeiAmount = Wei(3 * 10**9)
    #: L1 blocks before it expires, or its sender's funds come free, that a ticket is near its deadline.
    deadline_blocks: Annotated[int, Field(ge=1, le=100_000)] = 600
    largest_batch: Annotated[int, Field(ge=1, le=200)] = 20
    #: After so long a redemption is not looked at again.
    final_after_seconds: Seconds = 1800.0
    #: Call `reward()` each round.
    call_reward: bool = False


class ReachabilitySettings(_Section):
    """Whether the node sees to it that gateways find it."""

    #: Look at the own service URI as a stranger would, soon after the start and now and then.
    check: bool = True
    #: Put the registered service URI right where it differs from `service_uri`: costs gas.
    keep_service_uri: bool = False


class RunnerSettings(_Section):
    """Apps of others that register here and are sold by this node; none without a secret."""

    secret: Annotated[str, Field(pattern=r"^([!-~]{16,256})?$", repr=False)] = ""
    secret_file: File | None = None
    #: Addresses, networks and names of hosts that apps may be at.
    allow: tuple[Annotated[str, Field(min_length=1, max_length=253)], ...] = (
        "127.0.0.0/8",
        "::1/128",
    )
    max_runners: Annotated[int, Field(ge=1, le=1000)] = 64
    #: Of one call, from the first byte to the last.
    call_seconds: Seconds = 600.0
    #: After which a session that nobody uses ends.
    session_idle_seconds: Seconds = 60.0

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if self.secret and self.secret_file is not None:
            raise ValueError("secret and secret_file are two; set one of them")
        return self

    @property
    def are_on(self) -> bool:
        """Whether apps may register."""
        return bool(self.secret) or self.secret_file is not None


class TlsSettings(_Section):
    """PEM files in place of the certificate that the node makes itself."""

    #: With the whole chain, the node's own first.
    certificate: File | None = None
    key: File | None = None

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together; set both or neither")
        return self


class GatewayLinkSettings(_Section):
    """A gateway that this node dials, because it cannot be called itself, or to tell it news."""

    url: Annotated[str, AfterValidator(_link_url)]
    address: Account
    #: False: only news, jobs come directly.
    jobs: bool = True
    #: Besides the gateway's own proof, demand a certificate that an authority has issued.
    verify_tls: bool = False


class LoraSettings(_Section):
    """One LoRA that requests may name. Without a path it is looked for in `loras_dir`."""

    #: What the wire lets a request name; see `network.wire.limits`.
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]{1,128}$")]
    path: File | None = None
    models: tuple[str, ...] = ()


class ContainerSettings(_Section):
    """How `limner-node runner` stands in for Livepeer's ai-runner."""

    listen: Annotated[str, AfterValidator(_listen_address)] = "127.0.0.1:8000"
    #: By which go-livepeer reaches it; None: the address listened on.
    url: Annotated[str, AfterValidator(_http_url)] | None = None
    #: What callers have to show; empty: nothing.
    token: str = Field(default="", repr=False, max_length=1024, pattern=r"^[!-~]*$")
    #: A file that holds the token; made with a new one where there is none.
    token_file: File | None = None
    #: Serve whoever reaches it, on a public address as well.
    open: bool = False
    #: What `/version` tells; empty: the node's own.
    version: Annotated[str, Field(max_length=100, pattern=r"^[!-~]*$")] = ""


class NodeSettings(_Section):
    """Everything `limner-node run` can be told."""

    listen: Annotated[str, AfterValidator(_listen_url)] = "https://127.0.0.1:8936"
    admin_listen: Annotated[str, AfterValidator(_listen_address)] = "127.0.0.1:7935"
    service_uri: Annotated[str, AfterValidator(_http_url)] | None = None
    data_dir: File = Path("~/.limner/node").expanduser()
    allowed_gateways: frozenset[Account] = frozenset()
    open: bool = False
    price: PriceSetting = Fraction(2_400_000)
    models: tuple[ModelSettings, ...] = ()
    models_dir: File | None = None
    loras: tuple[LoraSettings, ...] = ()
    gateways: tuple[GatewayLinkSettings, ...] = ()
    loras_dir: File | None = None
    defaults_policy: Literal["profile", "as-sent"] = "profile"
    ai_models: File | None = None
    usd_per_eth: RateSetting | None = None
    price_feed: PriceFeedSettings = PriceFeedSettings()
    limits: LimitSettings = LimitSettings()
    queue: QueueSettings = QueueSettings()
    repeats: RepeatSettings = RepeatSettings()
    server: ServerSettings = ServerSettings()
    keystore: KeystoreSettings = KeystoreSettings()
    database: DatabaseSettings = DatabaseSettings()
    engine: EngineSettings = EngineSettings()
    safety: SafetySettings = SafetySettings()
    chain: ChainSettings = ChainSettings()
    payments: PaymentSettings = PaymentSettings()
    redemption: RedemptionSettings = RedemptionSettings()
    container: ContainerSettings = ContainerSettings()
    reachability: ReachabilitySettings = ReachabilitySettings()
    runners: RunnerSettings = RunnerSettings()
    tls: TlsSettings = TlsSettings()
    log: LogSettings = LogSettings()


def database_url(settings: NodeSettings) -> str:
    """Return where the journal is."""
    return settings.database.url or f"sqlite:///{settings.data_dir.absolute() / _DATABASE_FILE}"


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches `host`; a name other than localhost may be public."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_wildcard(host: str) -> bool:
    """Tell whether `host` means every address of this machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def serves_strangers(settings: NodeSettings) -> bool:
    """Tell whether others than this machine can reach the node, directly or by its service URI."""
    urls = [settings.listen, *([settings.service_uri] if settings.service_uri else [])]
    return not all(is_loopback(urlsplit(url).hostname or "") for url in urls)


def is_onchain(settings: NodeSettings) -> bool:
    """Tell whether payers pay by ticket, before work."""
    return settings.chain.network != OFFCHAIN


def check_access(settings: NodeSettings) -> None:
    """Raise ConfigError where anybody could have work done without being known or paying."""
    if settings.open and settings.allowed_gateways:
        raise ConfigError(
            "open", "serves anybody, but allowed_gateways names a few; remove one of the two"
        )
    is_guarded = settings.open or settings.allowed_gateways or is_onchain(settings)
    if serves_strangers(settings) and not is_guarded:
        where = settings.service_uri or settings.listen
        raise ConfigError(
            "listen",
            f"{where} can be reached by others, and nothing says who may have work done here. "
            "Put the addresses of your gateways into allowed_gateways (`limner-gateway address` "
            "prints a gateway's), listen on 127.0.0.1, or start with --open to serve anybody",
        )


def service_uri(settings: NodeSettings, port: int) -> str:
    """Return the URL to advertise; `port` is the one the listener got."""
    if settings.service_uri is not None:
        return settings.service_uri
    url = urlsplit(settings.listen)
    host = url.hostname or ""
    if is_wildcard(host):
        raise ConfigError(
            "service_uri",
            f"listening on {host} does not say how gateways reach this node; set it, for example "
            f'service_uri = "{url.scheme}://node.example.org:{port}"',
        )
    shown = f"[{host}]" if ":" in host else host
    return f"{url.scheme}://{shown}:{port}"
