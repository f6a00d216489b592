"""What the answers of an orchestrator mean to whoever runs it. Pure."""

from dataclasses import dataclass
from typing import Final

import orjson

from network.capabilities import TEXT_TO_IMAGE
from network.findings import Finding, fail, ok, skip, warn
from network.identity import checksum
from network.reachability.calls import Page, Terms, printable
from network.units import Address, ModelId

#: Livepeer's gateways wait so long for the terms of those that they ask at once (Livepeer wire, 7.6).
SLOW_SECONDS: Final = 0.5
_OK: Final = 200
_NOT_FOUND: Final = 404
_ACCOUNT: Final = "account"
_DISCOVERY: Final = "discovery"
_HEALTH: Final = "health"
#: What orchestrators say to those who could not pay them: as it should be, for a stranger.
_UNFUNDED: Final = ("reserve", "deposit")
_UNKNOWN: Final = "sig check failed"


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the owner of a service URI knows of what stands there."""

    #: None: whoever answers.
    account: Address | None
    #: Strangers from anywhere are to come.
    is_public: bool = False
    #: Only named gateways are told anything.
    is_restricted: bool = False
    #: One that it offers.
    model_id: ModelId | None = None


def judge_uri(uri: str, expected: Expectation, *, has_port: bool) -> Finding:
    """Say whether the service URI is one that gateways can use as it stands."""
    what = "service URI"
    if not has_port:
        return warn(what, f"{uri} names no port", f"write it, as in {uri}:8936")
    if uri.startswith("http://") and expected.is_public:
        return warn(
            what,
            f"{uri} is in clear text: prompts and images travel readable",
            "listen on https://, or put a proxy with TLS before the node",
        )
    return ok(what, uri)


def judge_account(found: Address | None, expected: Address | None) -> Finding:
    """Say whether the right orchestrator answers; `found` None signed nothing."""
    if found is None:
        return warn(
            _ACCOUNT,
            "an orchestrator answers, but proves no account",
            "it is off-chain go-livepeer, or no node of ours",
        )
    if expected is None or found == expected:
        return ok(_ACCOUNT, f"{checksum(found)} answers")
    return fail(
        _ACCOUNT,
        f"{checksum(found)} answers, and not {checksum(expected)}: another orchestrator is there",
        "correct service_uri, or the forwarding of the port that leads elsewhere",
    )


def judge_terms(what: str, answer: Terms, expected: Expectation, uri: str) -> Finding:
    """Say whether gateways can do business after this answer."""
    told = f"{answer.seconds * 1000:.0f} ms"
    if answer.info is None:
        return _refusal(what, answer.refusal, told, expected)
    info = answer.info
    models = info.capabilities.models.get(TEXT_TO_IMAGE, {})
    if not info.transcoder:
        return warn(what, "it says that it takes no work", "it is stopping, or in maintenance")
    if info.transcoder.rstrip("/") != uri.rstrip("/"):
        return warn(
            what,
            f"gateways are sent on to {printable(info.transcoder)}",
            "the node's service_uri and this address should be the same",
        )
    if not models:
        return fail(what, "no model for text-to-image is on offer", "configure models")
    if answer.seconds > SLOW_SECONDS:
        return warn(
            what,
            f"took {told}; Livepeer's gateways pass over whoever takes more than "
            f"{SLOW_SECONDS * 1000:.0f} ms",
            "if it stays so while the node is idle, look at its load and its line",
        )
    return ok(what, f"{len(models)} model{'s' if len(models) > 1 else ''}, in {told}")


def judge_discovery(page: Page) -> Finding:
    """Say whether clients of live runners find apps here: a JSON list."""
    if page.status == _NOT_FOUND:
        return skip(_DISCOVERY, "GET /discovery is not served here")
    if page.status == _OK:
        try:
            found = orjson.loads(page.body)
        except ValueError:
            found = None
        if isinstance(found, list):
            return ok(_DISCOVERY, f"{len(found)} apps")
    return fail(
        _DISCOVERY,
        f"GET /discovery answers {page.status} and no JSON list",
        "something else than the node answers, a proxy perhaps",
    )


def judge_health(page: Page) -> Finding:
    """Say how the node feels; other orchestrators than ours do not tell."""
    if page.status == _NOT_FOUND:
        return skip(_HEALTH, "GET /health is not served here")
    try:
        told = orjson.loads(page.body)
        status = printable(str(told["status"]))
    except (ValueError, KeyError, TypeError):
        status = ""
    if page.status == _OK and status == "OK":
        return ok(_HEALTH, "OK")
    if page.status == _OK and status == "LOADING":
        return warn(_HEALTH, "models are being loaded", "wait until the node is ready")
    return fail(
        _HEALTH, f"GET /health answers {page.status} {status}".strip(), "the node's log tells why"
    )


def _refusal(what: str, words: str, told: str, expected: Expectation) -> Finding:
    low = words.lower()
    if any(word in low for word in _UNFUNDED):
        return ok(what, f"in {told}; nothing is quoted to who has no reserve, as it should be")
    if _UNKNOWN in low and expected.is_restricted:
        return ok(what, f"strangers are refused, as allowed_gateways wants it, in {told}")
    return fail(what, f"gateways are refused: {words}", "the node's log tells more")
