"""What becomes of a go-livepeer orchestrator's flags here: a table, and nothing else. Pure."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Final

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
from network.prices import auto_adjusted, parse_price, pixels_per_unit, written
from node.config.settings import is_wildcard

_PORT: Final = 8936
_ADMIN_PORT: Final = 7935
#: A ticket's face value over what redeeming it costs, unless the payer's reserve is small.
_USUAL_MULTIPLIER: Final = Fraction(100)
_GWEI: Final = 10**9
_HOST_OF_ALL: Final = "0.0.0.0"  # noqa: S104  what the flags asked for
_UNKNOWN: Final = "is not known here; if images depend on it, say so"
TITLE: Final = (
    "Settings of `limner-node run --config FILE`, from the flags of a go-livepeer orchestrator. "
    "configs/node.toml explains every setting, docs/migrating-from-go-livepeer.md every flag."
)


def migrate_node(flags: Mapping[str, str]) -> Migration:
    """Return the settings of a node. Raises FlagError."""
    made = translate(flags, _RULES, _UNKNOWN)
    if is_on(flags, "gateway") or is_on(flags, "broadcaster"):
        made.note("-gateway", "a gateway is a program of its own: limner-gateway migrate")
    if made.settings.get("chain.network", "offchain") != "offchain":
        made.steps.append(
            "See what the account is on the chain: limner-node wallet. If it is no active orchestrator yet: "
            "limner-node activate. If only the address changed: limner-node service-uri."
        )
        made.steps.append(
            "Stop go-livepeer's redeemer (-redeemer, or the orchestrator itself) before the first start: two "
            "programs that redeem for one account take each other's nonces. Tickets that go-livepeer won and did "
            "not redeem stay in its own database: let it redeem them first."
        )
    elif "listen" in made.settings:
        made.steps.append(
            "Say who may have work done: allowed_gateways = [addresses], or open = true for anybody."
        )
    made.steps.append(
        "limner-node prices tells what each model costs; limner-node bench what it should."
    )
    return made


def _listening(made: Migration, flags: Mapping[str, str]) -> None:
    """Where to listen, and what to call that: go-livepeer has -httpAddr for one and -serviceAddr for the other."""
    service = flags.get("serviceaddr", "")
    host, port = host_and_port(service, _PORT) if service not in ("", "none") else ("", _PORT)
    where, listen_port = (
        host_and_port(flags["httpaddr"], port) if "httpaddr" in flags else (_HOST_OF_ALL, port)
    )
    scheme = "http" if flags.get("httpaddr", "").startswith("http://") else "https"
    made.set("listen", f"{scheme}://{joined(where or _HOST_OF_ALL, listen_port)}")
    if host and not is_wildcard(host):
        made.set("service_uri", f"https://{joined(host, port)}")
    else:
        made.steps.append(
            'Set service_uri to where gateways find the node, for example "https://node.example.org:'
            f'{listen_port}": the flags name no host.'
        )


def _price(made: Migration, value: str, flags: Mapping[str, str]) -> None:
    pixels = pixels_per_unit(flags.get("pixelsperunit"))
    text = value if pixels == 1 else f"{value}/{pixels}"
    price = parse_price(text)
    made.set("price", text)
    if isinstance(price, Fraction) and price and is_on(flags, "autoadjustprice", default=True):
        quoted = written(auto_adjusted(price, _USUAL_MULTIPLIER))
        made.note(
            f"-pricePerUnit {value}",
            f"go-livepeer quoted about {quoted} wei for a pixel, for it adds what redeeming costs; here the price "
            "that is set is the price that is paid",
        )


def _service(made: Migration, value: str, flags: Mapping[str, str]) -> None:
    if value == "none":
        made.note("-serviceAddr", "none: a node that does no work is one that does not run")
    _listening(made, flags)


def _bound(made: Migration, _value: str, flags: Mapping[str, str]) -> None:
    if "serviceaddr" not in flags:
        _listening(made, flags)


def _admin(made: Migration, value: str, _flags: Mapping[str, str]) -> None:
    host, port = host_and_port(value, _ADMIN_PORT)
    made.set("admin_listen", joined(host or "127.0.0.1", port))


def _devices(made: Migration, value: str, _flags: Mapping[str, str]) -> None:
    ids = [one for one in value.split(",") if one]
    if value != "all" and not all(one.isdecimal() for one in ids):
        raise ValueError(f"{value[:40]!r} names no GPUs by their numbers")
    made.set("engine.device", "auto" if value == "all" or not ids else f"cuda:{ids[0]}")
    if value == "all" or len(ids) > 1:
        made.note(
            "-nvidia",
            f"{value}: a node has one GPU; for each of the others start one more, with a data_dir, ports and "
            "engine.device of its own, and the same account only off-chain",
        )


def _gas(made: Migration, value: str, _flags: Mapping[str, str]) -> None:
    wei = whole("wei", value)
    if wei == 0:
        return
    made.set("redemption.max_gas_price", wei)
    made.set("chain.gas.max_fee_gwei", max(1, -(-wei // _GWEI)))


def _face_value(made: Migration, value: str, _flags: Mapping[str, str]) -> None:
    if whole("wei", value):
        made.set("payments.max_face_value", whole("wei", value))


def _feed(made: Migration, value: str, _flags: Mapping[str, str]) -> None:
    made.set("price_feed.address", checksum(parse_address(value)))


def _recipient(made: Migration, value: str, flags: Mapping[str, str]) -> None:
    own = flags.get("ethacctaddr", "")
    if own and parse_address(own) == parse_address(value):
        return
    made.note(
        "-ethOrchAddr",
        f"{value}: is not supported: tickets are made out to the node's own account, which has to be the "
        "registered orchestrator",
    )
    made.steps.append(
        f"Import the key of {value} instead of the other account's, or stay with go-livepeer for this node."
    )


def _models(made: Migration, value: str, _flags: Mapping[str, str]) -> None:
    made.set("ai_models", value)
    made.steps.append(
        "Take entries with a url out of aiModels.json: containers are not used. Entries of other pipelines are "
        "left out with a line in the log."
    )


def _reward(made: Migration, value: str, flags: Mapping[str, str]) -> None:
    del value
    made.set("redemption.call_reward", is_on(flags, "reward"))


def _setting(key: str) -> Rule:
    def rule(made: Migration, value: str, _flags: Mapping[str, str]) -> None:
        made.set(key, value)

    return rule


_CONTAINERS: Final = "models run in the node's own process: there are no containers"
_VIDEO: Final = "is for video"
_REGISTERED: Final = "apps register with a running node: docs/running-a-node.md"

_RULES: Final = table_of(
    *chain_rules("node"),
    silent("orchestrator", "is what limner-node is"),
    silent("aiWorker", "models run in the node's own worker process, always"),
    told("transcoder", _VIDEO),
    ("pricePerUnit", _price),
    quiet("pixelsPerUnit"),
    ("priceFeedAddr", _feed),
    ("aiModels", _models),
    ("aiModelsDir", _setting("models_dir")),
    ("serviceAddr", _service),
    ("httpAddr", _bound),
    ("cliAddr", _admin),
    ("nvidia", _devices),
    ("maxGasPrice", _gas),
    ("maxFaceValue", _face_value),
    ("ethOrchAddr", _recipient),
    ("reward", _reward),
    told(
        "ticketEV", "a ticket is sized to a usual job of its model, so that one or two pay for it"
    ),
    told("autoAdjustPrice", "quotes are exact: the price that you set is the price that is paid"),
    told(
        "pricePerGateway",
        "is a base price, which models that are listed never have; a model's price for one gateway is "
        "aiModels.json's key gateway, and works here",
    ),
    silent("aiServiceRegistry", "the AI registry is the one that is used"),
    told("minGasPrice", "what the chain asks is paid, up to redemption.max_gas_price"),
    told("maxSessions", "is for video; a model's capacity says how many jobs it takes at a time"),
    silent("redeemer", "a node redeems its own tickets; see what is left to do"),
    told("redeemerAddr", "a node redeems its own tickets; see what is left to do"),
    silent("initializeRound", "rounds are initialised by others"),
    silent("startupAvailabilityCheck", "limner-node doctor looks"),
    told("aiRunnerImage", _CONTAINERS),
    told("aiRunnerImageOverrides", _CONTAINERS),
    told("aiMinRunnerVersion", _CONTAINERS),
    told("aiVerboseLogs", "log.level"),
    told("aiRunnerContainersPerGPU", "several models and jobs share a GPU by themselves"),
    told("aiServerless", _CONTAINERS),
    told("orchSecret", "there are no remote workers: every machine runs a node of its own"),
    told("nodes", "every node is found by its own registration"),
    told("objectStore", "images are answered in the response itself"),
    told(
        "authWebhookUrl", "allowed_gateways names who may come off-chain; on a chain, whoever pays"
    ),
    told("useLiveRunners", _REGISTERED),
    told("liveRunnerConfig", _REGISTERED),
    told("liveRunnerAddr", _REGISTERED),
    told("liveRunnerProxyUrl", _REGISTERED),
    told("livePaymentInterval", _VIDEO),
    quiet("gateway"),
    quiet("broadcaster"),
)
