"""What becomes of a go-livepeer gateway's or remote signer's flags here: a table. Pure."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from network.capabilities import is_version
from network.identity import checksum, parse_address
from network.livepeer_flags import host_and_port, is_on, joined, whole
from network.migration import (
    Migration,
    Rule,
    chain_rules,
    quiet,
    silent,
    table_of,
    told,
    translate,
)
from network.prices import parse_capability_prices, parse_price, pixels_per_unit, written

TITLE: Final = (
    "Settings of `limner-gateway run --config FILE`, from the flags of a go-livepeer gateway. "
    "configs/gateway.toml explains every setting, docs/migrating-from-go-livepeer.md every flag."
)

_PORT: Final = 8937
_SIGNER_PORT: Final = 8938
_ADMIN_PORT: Final = 5935
#: Where orchestrators of go-livepeer listen unless told otherwise.
_ORCHESTRATORS_PORT: Final = 8935
_UNKNOWN: Final = "is not known here; if images depend on it, say so"


def migrate_gateway(flags: Mapping[str, str]) -> Migration:
    """The settings of a gateway, or of a signer. Raises FlagError."""
    made = translate(flags, _RULES, _UNKNOWN)
    if is_on(flags, "orchestrator"):
        made.note("-orchestrator", "an orchestrator is a program of its own: limner-node migrate")
    if is_on(flags, "remotesigner"):
        made.steps.append("Start the signer with limner-gateway signer --config FILE.")
    elif not is_on(flags, "orchestrator"):
        made.steps.append(
            "Make a key for each client: limner-gateway keys create NAME. go-livepeer asks nobody for one; here "
            "every request has Authorization: Bearer KEY."
        )
    if made.settings.keys().isdisjoint(_SOURCES):
        made.steps.append(
            "Say whom to buy from: [[orchestrators]] or [discovery]; with nothing named, on a chain it is "
            "everybody who is registered there."
        )
    if made.settings.get("chain.network", "offchain") != "offchain":
        made.steps.append(
            "See deposit and reserve: limner-gateway wallet. They belong to the account, and come with its key."
        )
    return made


def _listen(made: Migration, value: str, flags: Mapping[str, str]) -> None:
    if is_on(flags, "remotesigner"):
        host, port = host_and_port(value, _SIGNER_PORT)
        made.set("signer.listen", joined(host or "0.0.0.0", port))  # noqa: S104  as the flag says
        return
    host, port = host_and_port(value, _PORT)
    made.set("listen", joined(host or "0.0.0.0", port))  # noqa: S104  as the flag says


def _admin(made: Migration, value: str, _flags: Mapping[str, str]) -> None:
    host, port = host_and_port(value, _ADMIN_PORT)
    made.set("admin_listen", joined(host or "127.0.0.1", port))


def _orchestrators(made: Migration, value: str, _flags: Mapping[str, str]) -> None:
    found = []
    for one in filter(None, (part.strip() for part in value.split(","))):
        scheme = urlsplit(one).scheme if "//" in one else "https"
        host, port = host_and_port(one, _ORCHESTRATORS_PORT)
        if scheme not in {"http", "https"} or not host:
            raise ValueError(f"{one[:80]!r} is no address of an orchestrator")
        found.append({"uri": f"{scheme}://{joined(host, port)}"})
    made.set(
        "orchestrators", [dict(pair) for pair in dict.fromkeys(tuple(e.items()) for e in found)]
    )


def _max_price(made: Migration, value: str, flags: Mapping[str, str]) -> None:
    pixels = pixels_per_unit(flags.get("pixelsperunit"))
    price = parse_price(f"{value}/{pixels}")
    if price == 0:
        made.note("-maxPricePerUnit", "0 is any price: routing.max_price is left out")
        return
    made.set("routing.max_price", written(price))


def _max_prices(made: Migration, value: str, _flags: Mapping[str, str]) -> None:
    if value.lstrip().startswith("{"):
        parse_capability_prices(value)
    made.set("routing.max_price_per_capability", value)


def _list_by_webhook(made: Migration, value: str, _flags: Mapping[str, str]) -> None:
    try:
        made.set("discovery.webhook_url", _public_url(value))
    except ValueError:
        made.note("-orchWebhookUrl ...", _LIST_WITH_A_KEY)


def _blocked(made: Migration, value: str, _flags: Mapping[str, str]) -> None:
    accounts = [part.strip() for part in value.split(",") if part.strip()]
    made.set("discovery.blocked_accounts", [checksum(parse_address(one)) for one in accounts])


def _least_version(made: Migration, value: str, _flags: Mapping[str, str]) -> None:
    if not is_version(value):
        raise ValueError(f"{value[:40]!r} is no version")
    made.set("discovery.min_version", value)


def _wei(key: str) -> Rule:
    def rule(made: Migration, value: str, _flags: Mapping[str, str]) -> None:
        made.set(key, whole("wei", value))

    return rule


def _multiplier(made: Migration, value: str, _flags: Mapping[str, str]) -> None:
    made.set("payments.deposit_multiplier", max(1, whole("times", value)))


def _signer(made: Migration, value: str, _flags: Mapping[str, str]) -> None:
    made.set("payments.signer_url", _public_url(value))


def _webhook(made: Migration, value: str, _flags: Mapping[str, str]) -> None:
    made.set("signer.webhook_url", _public_url(value))


def _allow_no_auth(made: Migration, _value: str, flags: Mapping[str, str]) -> None:
    made.set("signer.allow_no_auth", is_on(flags, "remotesignerallownoauth"))


def _public_url(value: str) -> str:
    """Raises ValueError for a URL that a file had better not hold."""
    url = urlsplit(value)
    if url.username or url.password or url.query:
        raise ValueError("the URL holds a secret; take it out, and set it in the environment")
    return value


_LIST_WITH_A_KEY: Final = (
    "the URL holds a secret; put it into LIMNER_GATEWAY__DISCOVERY__WEBHOOK_URL"
)
_SELECTION: Final = "an orchestrator is chosen by price and expected time, never by stake or chance: routing.time_value"
_MEASURED: Final = "speed and failures are measured by the gateway itself"
_KAFKA: Final = (
    "the journal says who bought what: limner-gateway usage, or your own database by URL"
)
_SIGNERS_BEARER: Final = (
    "is never copied; put the bearer token into LIMNER_GATEWAY__PAYMENTS__SIGNER_TOKEN"
)
_WEBHOOKS_BEARER: Final = (
    "is never copied; put the bearer token into LIMNER_GATEWAY__SIGNER__WEBHOOK_SECRET"
)

_SOURCES: Final = frozenset({"orchestrators", "discovery.webhook_url"})

_RULES: Final = table_of(
    *chain_rules("gateway"),
    silent("gateway", "is what limner-gateway is"),
    silent("broadcaster", "is what limner-gateway is"),
    quiet("orchestrator"),
    quiet("remoteSigner"),
    quiet("pixelsPerUnit"),
    silent("httpIngest", "the endpoint is always open, to whoever has a key"),
    ("httpAddr", _listen),
    ("cliAddr", _admin),
    ("orchAddr", _orchestrators),
    ("maxPricePerUnit", _max_price),
    ("maxPricePerCapability", _max_prices),
    ("maxTicketEV", _wei("payments.max_ticket_value")),
    ("maxTotalEV", _wei("payments.max_payment_value")),
    ("depositMultiplier", _multiplier),
    ("remoteSignerUrl", _signer),
    ("remoteSignerWebhookUrl", _webhook),
    ("remoteSignerAllowNoAuth", _allow_no_auth),
    silent("remoteDiscovery", "the signer always serves /discover-orchestrators"),
    silent("remoteSignerHeaders", _SIGNERS_BEARER),
    silent("remoteSignerWebhookHeaders", _WEBHOOKS_BEARER),
    ("orchWebhookUrl", _list_by_webhook),
    ("orchBlocklist", _blocked),
    ("orchMinLivepeerVersion", _least_version),
    told("aiServiceRegistry", "the AI registry is the one that is read"),
    told("extraNodes", "every node is found by its own registration"),
    told(
        "discoveryTimeout",
        "nodes are asked beside the requests, in routing.call_seconds: none waits",
    ),
    told(
        "aiProcessingRetryTimeout",
        "a request goes to the next node until routing.deadline_seconds, 300, which counts while a node works, too",
    ),
    told("ignoreMaxPriceIfNeeded", "nothing is ever bought above routing.max_price"),
    told("minPerfScore", _MEASURED),
    told("orchPerfStatsUrl", _MEASURED),
    told("region", _MEASURED),
    told("selectRandFreq", _SELECTION),
    told("selectStakeWeight", _SELECTION),
    told("selectPriceWeight", _SELECTION),
    told("selectPriceExpFactor", _SELECTION),
    told("aiMinRunnerVersion", "models are asked for by their names"),
    told("liveAICapReportInterval", "nodes are asked every routing.refresh_seconds"),
    told("gatewayHost", "public_url is what clients reach the gateway at"),
    told("serviceAddr", "public_url is what clients reach the gateway at"),
    told("nodes", "is for orchestrators"),
    told("objectStore", "images lie in data_dir for images.lifetime_seconds"),
    told(
        "authWebhookUrl",
        "it never guarded images; here every client has a key, or [auth_webhook] knows it",
    ),
    told(
        "maxGasPrice", "chain.gas.max_fee_gwei; only fund, unlock and withdraw send transactions"
    ),
    told("minGasPrice", "what the chain asks is paid"),
    told("priceFeedAddr", "price_feed.address, if it is not the default"),
    told("kafkaBootstrapServers", _KAFKA),
    told("kafkaUser", _KAFKA),
    silent("kafkaPassword", _KAFKA),
    told("kafkaGatewayTopic", _KAFKA),
)
