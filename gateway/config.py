"""What an operator may set. Every default is explained in `configs/gateway.toml`."""

import json
import re
from fractions import Fraction
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from network.capabilities import is_version
from network.chain.settings import ChainSettings, PriceFeedSettings
from network.dollars import AttoUsd, parse_usd
from network.identity import checksum, parse_address
from network.keystore import KEYSTORE_NAME
from network.passphrase import PassphraseSources
from network.payments.pricing import PAYERS_MAX_TICKET_VALUE, PAYERS_MAX_TOTAL_VALUE
from network.runtime.settings import PriceSetting, RateSetting, Settings, WeiPriceSetting
from network.units import ModelId, Wei, parse_wei

T = TypeVar("T")

_MIB = 1024 * 1024
#: Seconds that S3 lets a signed URL live.
_LONGEST_SIGNED = 7 * 86_400
_PRINTABLE = re.compile("[!-~]+")


def _listen_address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    is_port = port.isdecimal() and int(port) <= 65535  # noqa: PLR2004
    if not colon or not host or "/" in host or not is_port:
        raise ValueError(
            'write "host:port", for example "127.0.0.1:8937"; port 0 takes a free one'
        )
    return text


def _http_url(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in {"http", "https"} or not url.hostname or not _PRINTABLE.fullmatch(text):
        raise ValueError('write a whole address, for example "https://127.0.0.1:8936"')
    return text.rstrip("/")


def _secret_url(example: str) -> AfterValidator:
    """Without the URL in the message: it may hold a key."""

    def check(secret: SecretStr) -> SecretStr:
        text = secret.get_secret_value()
        url = urlsplit(text)
        if text and (url.scheme not in {"http", "https"} or not url.hostname):
            raise ValueError(f"write a whole address, for example {example}")
        return secret

    return AfterValidator(check)


def _json_text(value: object) -> object:
    """A table, which is what JSON in the environment becomes, is as good as its text."""
    return json.dumps(value) if isinstance(value, dict) else value


def _version(text: str) -> str:
    if text and not is_version(text):
        raise ValueError('is no version; write it as "0.9.1"')
    return text


def _wei(value: object) -> object:
    return parse_wei(value) if isinstance(value, str) else value


def _usd(value: object) -> object:
    return parse_usd(value) if isinstance(value, str) else value


def _bucket_url(text: str) -> str:
    if text and not text.startswith("s3://"):
        raise ValueError('write "s3://bucket/prefix"; leave it empty to keep images on this disk')
    return text


ImageStoreUrl = Annotated[str, AfterValidator(_bucket_url)]


def _networks(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        try:
            ip_network(text)
        except ValueError:
            raise ValueError(
                f'{text!r} is no network; write "10.0.0.0/8", or an address such as "127.0.0.1"'
            ) from None
    return texts


ListenAddress = Annotated[str, AfterValidator(_listen_address)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]


def _no_twins(tables: tuple[T, ...]) -> tuple[T, ...]:
    names = [getattr(table, "uri", "") or getattr(table, "id", "") for table in tables]
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise ValueError(f"{', '.join(twins)} stands there more than once")
    return tables


Seconds = Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
DollarAmount = Annotated[AttoUsd, BeforeValidator(_usd), Field(ge=0)]
WeiAmount = Annotated[Wei, BeforeValidator(_wei), Field(ge=0)]
Account = Annotated[str, AfterValidator(lambda text: checksum(parse_address(text)))]


class LogSettings(Settings):
    """Where `level` is at least this, one line for each event goes to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class KeystoreSettings(Settings):
    """What opens the gateway's own identity; both empty: a passphrase file is made beside it."""

    passphrase: SecretStr = SecretStr("")
    passphrase_file: Path | None = None


class TlsSettings(Settings):
    """PEM files; without them the gateway speaks plain HTTP."""

    certificate: Path | None = None
    key: Path | None = None

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together; set both or neither")
        return self


class ServerSettings(Settings):
    """How the listener treats connections."""

    max_in_flight: Count = 256
    max_in_flight_per_key: Count = 256
    max_connections: Count = 4096
    body_timeout_seconds: Seconds = 15.0
    keepalive_seconds: Seconds = 75.0
    shutdown_seconds: Seconds = 20.0
    trusted_proxies: Annotated[tuple[str, ...], AfterValidator(_networks)] = ()
    reveal_orchestrator: bool = True


class LimitSettings(Settings):
    """Bounds of a request; published in `/openapi.json`."""

    size_multiple: Count = 8
    min_side: Count = 64
    max_width: Count = 1024
    max_height: Count = 1024
    max_steps: Count = 100
    max_images: Annotated[int, Field(ge=1, le=64)] = 4
    max_prompt_chars: Count = 2000
    max_guidance: Annotated[float, Field(ge=1, le=1000, allow_inf_nan=False)] = 30.0
    prompt_parts: Annotated[int, Field(ge=1, le=3)] = 1
    max_loras: Annotated[int, Field(ge=0, le=4)] = 4
    max_body_bytes: Annotated[int, Field(ge=1024, le=4 * _MIB)] = 256 * 1024

    @model_validator(mode="after")
    def _allow_something(self) -> Self:
        least = -(-self.min_side // self.size_multiple) * self.size_multiple
        if least > min(self.max_width, self.max_height):
            raise ValueError(f"no size is left: the smallest side is {least}")
        return self


LoraName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]{1,128}$")]


class ModelSettings(Settings):
    """Bounds of one model where they differ from `[limits]`."""

    id: Annotated[str, Field(min_length=1, max_length=200)]
    size_multiple: Count | None = None
    min_side: Count | None = None
    max_width: Count | None = None
    max_height: Count | None = None
    max_steps: Count | None = None
    max_images: Annotated[int, Field(ge=1, le=64)] | None = None
    max_prompt_chars: Count | None = None
    max_guidance: Annotated[float, Field(ge=1, le=1000, allow_inf_nan=False)] | None = None
    prompt_parts: Annotated[int, Field(ge=1, le=3)] | None = None
    max_loras: Annotated[int, Field(ge=0, le=4)] | None = None
    #: No bound, but what the page proposes.
    loras: tuple[LoraName, ...] = ()


class AnonymousSettings(Settings):
    """Those who show no key: what one address may do, and what all of them together."""

    enabled: bool = False
    requests_per_minute: Count = 10
    pixels_per_minute: Count = 4 * 1024 * 1024
    max_in_flight: Count = 2
    total_in_flight: Count = 32
    wei_per_day: WeiAmount = Wei(10**15)
    usd_per_day: DollarAmount | None = None
    max_price: PriceSetting | None = None
    models: tuple[str, ...] = ()
    max_steps: Count | None = 50
    max_addresses: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000


class AuthWebhookSettings(Settings):
    """The operator's own service that knows keys; without a URL there is none."""

    url: Annotated[SecretStr, _secret_url("https://keys.example/authorize")] = SecretStr("")
    secret: SecretStr = SecretStr("")
    asked: Literal["unknown", "always"] = "unknown"
    timeout_seconds: Annotated[float, Field(gt=0, le=30, allow_inf_nan=False)] = 3.0
    cache_seconds: Seconds = 60.0
    refusal_seconds: Seconds = 10.0
    stale_seconds: Annotated[float, Field(ge=0, le=31_536_000, allow_inf_nan=False)] = 3600.0
    max_cached: Count = 10_000


class ImageSettings(Settings):
    """How long and how much the image store keeps."""

    lifetime_seconds: Seconds = 86_400.0
    max_bytes: Annotated[int, Field(ge=16 * _MIB)] = 2048 * _MIB
    max_count: Annotated[int, Field(ge=100, le=10_000_000)] = 100_000
    sweep_seconds: Seconds = 30.0
    check_pixels: bool = False
    store: ImageStoreUrl = ""
    urls: Literal["proxied", "presigned"] = "proxied"
    access_key_id: str = Field(default="", repr=False)
    secret_access_key: SecretStr = SecretStr("")

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if bool(self.access_key_id) != bool(self.secret_access_key.get_secret_value()):
            raise ValueError(
                "access_key_id and secret_access_key go together; set both or neither"
            )
        if self.urls == "presigned" and not self.store:
            raise ValueError('urls = "presigned" is for a store that is a bucket')
        if self.urls == "presigned" and self.lifetime_seconds > _LONGEST_SIGNED:
            raise ValueError(f"signed URLs live for at most {_LONGEST_SIGNED} seconds")
        return self


class OrchestratorSettings(Settings):
    """One orchestrator to buy from."""

    uri: HttpUrl
    address: Account | Literal[""] = ""


class LinkSettings(Settings):
    """Nodes without a public address, which dial this gateway. `nodes` are their accounts."""

    listen: ListenAddress | Literal[""] = ""
    nodes: tuple[Account, ...] = ()
    silence_seconds: Annotated[float, Field(ge=1, le=120, allow_inf_nan=False)] = 10.0


class HedgingSettings(Settings):
    """When a late job is given to a second orchestrator as well."""

    share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    spare: Annotated[int, Field(ge=0, le=1_000_000)] = 10
    max_fee: WeiAmount = Wei(0)
    quantile: Annotated[float, Field(ge=0.5, le=0.99, allow_inf_nan=False)] = 0.95


class RoutingSettings(Settings):
    """How an orchestrator is chosen and how long a request may take."""

    time_value: WeiPriceSetting = Fraction(0)
    max_price: PriceSetting | None = None
    max_price_per_capability: Annotated[str, BeforeValidator(_json_text)] = ""
    deadline_seconds: Seconds = 300.0
    attempt_seconds: Seconds = 180.0
    max_wait_seconds: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 10.0
    max_waiting: Count = 1000
    max_failures: Count = 4
    retry_share: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 0.2
    retry_spare: Annotated[int, Field(ge=0, le=1_000_000)] = 50
    refresh_seconds: Seconds = 5.0
    stale_seconds: Seconds = 60.0
    call_seconds: Seconds = 2.5
    hedging: HedgingSettings = HedgingSettings()


class SpotCheckSettings(Settings):
    """How often delivered images are made again elsewhere, and compared."""

    share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    wei_per_day: WeiAmount = Wei(0)
    trusted: HttpUrl | Literal[""] = ""
    least_likeness: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 22.0


class DiscoverySettings(Settings):
    """Where orchestrators come from besides `[[orchestrators]]`, and who is left out."""

    webhook_url: Annotated[SecretStr, _secret_url("https://lists.example/orchestrators")] = (
        SecretStr("")
    )
    webhook_seconds: Seconds = 60.0
    remote_url: HttpUrl | Literal[""] = ""
    remote_token: SecretStr = SecretStr("")
    remote_seconds: Seconds = 60.0
    #: None: where no other source is named, and there is a chain.
    chain: bool | None = None
    chain_seconds: Seconds = 600.0
    #: None: on every chain but Livepeer's own, where strangers register.
    allow_private: bool | None = None
    blocked_accounts: tuple[Account, ...] = ()
    blocked_uris: tuple[str, ...] = ()
    min_version: Annotated[str, AfterValidator(_version)] = ""


class PaymentSettings(Settings):
    """Who signs, what may be promised at a time, and what tickets may say. Amounts in wei."""

    signer_url: HttpUrl | Literal[""] = ""
    signer_token: SecretStr = SecretStr("")
    max_wei_in_flight: WeiAmount | None = None
    max_wei_per_hour: WeiAmount | None = None
    max_wei_per_hour_per_key: WeiAmount | None = None
    max_wei_per_hour_per_orchestrator: WeiAmount | None = None
    max_face_value: WeiAmount | None = None
    max_ticket_value: WeiAmount = PAYERS_MAX_TICKET_VALUE
    max_payment_value: WeiAmount = PAYERS_MAX_TOTAL_VALUE
    max_tickets: Annotated[int, Field(ge=1, le=600)] = 600
    deposit_multiplier: Count = 1
    warn_deposit: WeiAmount = Wei(0)
    warn_reserve: WeiAmount = Wei(0)


class SignerSettings(Settings):
    """`limner-gateway signer`: tickets for clients that hold no key."""

    listen: ListenAddress = "127.0.0.1:8938"
    webhook_url: HttpUrl | Literal[""] = ""
    webhook_secret: SecretStr = SecretStr("")
    allow_no_auth: bool = False
    max_price: PriceSetting | None = None
    max_price_per_second: PriceSetting | None = None
    max_price_per_call: PriceSetting | None = None


class JobSettings(Settings):
    """Jobs that nobody waits for, and the webhooks that are told how they ended."""

    max_async: Count = 128
    max_async_per_key: Count = 32
    patience_seconds: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 300.0
    recover_seconds: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 300.0
    webhook_timeout_seconds: Seconds = 10.0
    webhook_first_pause_seconds: Seconds = 5.0
    webhook_give_up_seconds: Seconds = 86_400.0
    private_webhooks: bool = False


class BudgetSettings(Settings):
    """Budgets of keys and teams in US dollars."""

    #: A rate of the price feed that is older is not gone by.
    max_rate_age_seconds: Annotated[float, Field(gt=0, le=2_592_000, allow_inf_nan=False)] = (
        172_800.0
    )


_SHARES = {"free": "0", "full": "1"}


def _share(value: object) -> object:
    """A fraction, exactly as it is written."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            return Fraction(_SHARES.get(str(value), str(value)))
        except (ValueError, ZeroDivisionError):
            pass
    if isinstance(value, Fraction):
        return value
    raise ValueError('write "free", "full", or a part of the fee such as "1/4" or 0.25')


def _part(share: Fraction) -> Fraction:
    if not 0 <= share <= 1:
        raise ValueError("is a part of the fee: from 0 to 1")
    return share


class RepeatSettings(Settings):
    """Requests that were asked before, or are asked now: answered with the same images."""

    cache: bool = False
    coalesce: bool = False
    scope: Literal["key", "team", "all"] = "key"
    price: Annotated[Fraction, BeforeValidator(_share), AfterValidator(_part)] = Fraction(0)
    max_answers: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000


class AccountingSettings(Settings):
    """Where the journal and the keys are kept."""

    database_url: str = Field(default="", repr=False)
    synchronous: Literal["FULL", "NORMAL"] = "FULL"


class GatewaySettings(Settings):
    """The whole of `gateway.toml`."""

    listen: ListenAddress = "127.0.0.1:8937"
    admin_listen: ListenAddress | Literal[""] = "127.0.0.1:5935"
    public_url: HttpUrl | Literal[""] = ""
    data_dir: Path = Path("~/.limner/gateway")
    default_model: Annotated[ModelId, Field(min_length=1, max_length=200)] = ModelId(
        "limner/shapes"
    )
    page: bool = True
    log: LogSettings = LogSettings()
    keystore: KeystoreSettings = KeystoreSettings()
    tls: TlsSettings = TlsSettings()
    server: ServerSettings = ServerSettings()
    limits: LimitSettings = LimitSettings()
    models: Annotated[tuple[ModelSettings, ...], AfterValidator(_no_twins)] = (
        # The model that ships with the node draws in cells of 32 pixels.
        ModelSettings(
            id="limner/shapes", size_multiple=32, loras=("limner/night", "limner/outlines")
        ),
    )
    anonymous: AnonymousSettings = AnonymousSettings()
    auth_webhook: AuthWebhookSettings = AuthWebhookSettings()
    images: ImageSettings = ImageSettings()
    jobs: JobSettings = JobSettings()
    repeats: RepeatSettings = RepeatSettings()
    orchestrators: Annotated[tuple[OrchestratorSettings, ...], AfterValidator(_no_twins)] = ()
    links: LinkSettings = LinkSettings()
    routing: RoutingSettings = RoutingSettings()
    spot_checks: SpotCheckSettings = SpotCheckSettings()
    discovery: DiscoverySettings = DiscoverySettings()
    chain: ChainSettings = ChainSettings()
    usd_per_eth: RateSetting | None = None
    price_feed: PriceFeedSettings = PriceFeedSettings()
    budgets: BudgetSettings = BudgetSettings()
    payments: PaymentSettings = PaymentSettings()
    signer: SignerSettings = SignerSettings()
    accounting: AccountingSettings = AccountingSettings()

    @model_validator(mode="after")
    def _can_count_dollars(self) -> Self:
        has_rate = self.usd_per_eth is not None or self.chain.network != "offchain"
        if self.anonymous.usd_per_day is not None and not has_rate:
            raise ValueError("anonymous.usd_per_day needs what an ETH costs; set usd_per_eth")
        return self

    @property
    def passphrase_sources(self) -> PassphraseSources:
        """Where the passphrase of the gateway's own account is looked for."""
        data_dir = self.data_dir.expanduser()
        return PassphraseSources(
            given=self.keystore.passphrase.get_secret_value(),
            file=self.keystore.passphrase_file,
            made=data_dir / "keystore.passphrase",
            keystore=data_dir / KEYSTORE_NAME,
        )
