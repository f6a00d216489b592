"""ANY /apps/{route}/app: calls of apps, paid one by one (Livepeer wire, 7.2)."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

import orjson
from aiohttp import web

from network.errors import JSON_TYPE, Problem, ProblemError
from network.identity import parse_address
from network.units import Address, Wei
from network.wire import problems
from network.wire.headers import PAYER_ADDRESS, PAYMENT, SEGMENT
from network.wire.session import Payment
from node.accounting.model import NOBODY
from node.api.bodies import read_body
from node.api.credentials import Doorkeeper, Grant
from node.api.discovery import DiscoveryService
from node.api.envelope import in_json
from node.api.text_to_image import attempt_id
from node.apps.challenges import Challenge, Challenger, subject_of
from node.apps.model import App, Call, Offer, Sale
from node.apps.paying import Paying
from node.apps.refusal import Refusal
from node.apps.shop import Shop
from node.discovery.advertiser import Access
from node.payments.till import Till

_LARGEST_REFRESH: Final = 4096
_ATTEMPT_BYTES: Final = 16
_SESSION_GONE: Final = "session; a call is paid for with its request, and its session ends with it"


@dataclass(frozen=True, slots=True)
class AppService:
    """Sells calls of apps.

    `till` and `challenger` are None off-chain, where nobody pays by ticket. `was_seen` tells whether
    a session's call was made.
    """

    shop: Shop
    doorkeeper: Doorkeeper
    access: Access
    till: Till | None
    challenger: Challenger | None
    was_seen: Callable[[str], bool]
    service_uri: str
    max_body_bytes: int
    body_timeout: float

    async def call(self, request: web.Request) -> web.StreamResponse:
        """Serve a call that is paid for, or free; ask for payment otherwise. Raises Refusal."""
        route = request.match_info["route"]
        app = self.shop.find(route)
        if app is None:
            raise ProblemError(problems.not_found(f"app {route!r}"))
        body = await read_body(request, max_bytes=self.max_body_bytes, seconds=self.body_timeout)
        call = Call(request, request.match_info["tail"], body)
        if request.headers.get(SEGMENT) or request.headers.get(PAYMENT):
            return await self._sell(app, call, route, self.doorkeeper.check(request))
        return await self._introduce(app, call, route)

    async def refresh(self, request: web.Request) -> web.Response:
        """Answer with new terms for a session whose call was not made yet. Raises Refusal."""
        body = await read_body(request, max_bytes=_LARGEST_REFRESH, seconds=self.body_timeout)
        payer, session_id = _refresh_request(body)
        self._admit(payer)
        renewed = None
        if self.challenger is not None and not self.was_seen(session_id):
            renewed = await self.challenger.renewed(payer, session_id)
        if renewed is None:
            message = "This payer has no such session that is still to be paid for."
            raise ProblemError(_problem(409, message, "no_session"))
        return _json(200, self._terms(renewed))

    async def top_up(self, _request: web.Request) -> web.Response:
        """Refuse: a call at a fixed price takes no further payment. Raises ProblemError."""
        raise ProblemError(problems.not_found(_SESSION_GONE))

    async def nothing(self, _request: web.Request) -> web.Response:
        """Refuse what is no call. Raises ProblemError."""
        raise ProblemError(problems.not_found("path; apps are called at /apps/{route}/app"))

    async def _sell(self, app: App, call: Call, route: str, grant: Grant) -> web.StreamResponse:
        if grant.manifest_id != grant.session_id.encode():
            raise Refusal(403, "mismatched manifest and auth token", "mismatched_manifest")
        offer = app.offer(call, grant.payer)
        session = None
        if self.challenger is not None:
            session = self.challenger.session(grant.session_id, grant.payer)
        if session is not None and session.covers(subject_of(route, call.body)):
            # What was promised holds, though a rate may have moved since.
            offer = replace(offer, fee=session.cost)
        if self.till is not None and (grant.expected_price or Fraction(0)) != offer.fee:
            raise Refusal(400, "payment price does not match live runner price", "price")
        # A session that was made for one call names it, so that the call is made once.
        attempt = _own_attempt(call) if session is None else grant.session_id
        return await _fulfilled(offer, grant.payer, Paying(self.till, grant.payment, attempt))

    async def _introduce(self, app: App, call: Call, route: str) -> web.StreamResponse:
        """Serve who needs no name; tell the others how to pay."""
        if self.access.is_open:
            offer = app.offer(call, NOBODY)
            if self.challenger is None or not offer.fee:
                return await _fulfilled(offer, NOBODY, Paying(None, Payment(), _own_attempt(call)))
        if self.challenger is None:
            raise Refusal(
                403,
                "this node works for known accounts only: sign the call with Livepeer-Segment",
                "unknown_gateway",
            )
        payer = _named(call.request)
        self._admit(payer)
        offer = app.offer(call, payer)
        subject = subject_of(route, call.body)
        challenge = await self.challenger.challenge(payer, offer.fee, subject)
        return self._asked_to_pay(challenge, offer.fee, route)

    def _admit(self, payer: Address) -> None:
        if not self.access.is_open and payer not in self.access.allowed:
            raise Refusal(403, "this account may not have work done here", "unknown_gateway")

    def _asked_to_pay(self, challenge: Challenge, fee: Wei, route: str) -> web.Response:
        message = f"This call costs {fee} wei; pay by these terms and repeat the same request."
        place = f"{self.service_uri.rstrip('/')}/apps/{route}"
        told = {
            **orjson.loads(_problem(402, message, "payment_required").body()),
            **self._terms(challenge),
            "payment_url": f"{place}/session/{challenge.session_id}/payment",
        }
        return _json(402, told)

    def _terms(self, challenge: Challenge) -> dict[str, Any]:
        return {
            "payment_params": challenge.payment_params,
            "manifest_id": challenge.session_id,
            "orchestrator": self.service_uri,
        }


def app_routes(
    apps: AppService, discovery: DiscoveryService, refused: Callable[[str], None]
) -> Callable[[web.Application], None]:
    """Return what adds the routes of apps. `refused` counts refusals by reason."""

    def add(application: web.Application) -> None:
        router = application.router
        router.add_get("/discovery", in_json(refused, discovery.get_discovery))
        router.add_post("/refresh-payment", in_json(refused, apps.refresh))
        router.add_route("*", "/apps/{route}/app{tail:(/.*)?}", in_json(refused, apps.call))
        router.add_post("/apps/{route}/session/{session}/payment", in_json(refused, apps.top_up))
        router.add_route("*", "/apps/{rest:.*}", in_json(refused, apps.nothing))

    return add


def _own_attempt(call: Call) -> str:
    return attempt_id(call.request.headers) or secrets.token_hex(_ATTEMPT_BYTES)


def _named(request: web.Request) -> Address:
    """Return who the caller says will pay. Raises Refusal."""
    named = request.headers.get(PAYER_ADDRESS)
    if named is None:
        raise Refusal(402, f"{PAYER_ADDRESS} is missing: who is going to pay?", "no_payer")
    try:
        payer = parse_address(named)
    except ValueError as error:
        raise Refusal(402, f"{PAYER_ADDRESS}: {error}", "bad_payer") from None
    if payer == NOBODY:
        raise Refusal(402, f"{PAYER_ADDRESS} is nobody's account", "bad_payer")
    return payer


async def _fulfilled(offer: Offer, payer: Address, paying: Paying) -> web.StreamResponse:
    sale = Sale(paying.attempt_id, payer, offer.fee, paying.pay)
    try:
        response = await offer.fulfil(sale)
    except Refusal as refusal:
        raise paying.told(refusal) from None
    if not response.prepared:
        response.headers.update(paying.headers)
    return response


def _refresh_request(body: bytes) -> tuple[Address, str]:
    try:
        fields = orjson.loads(body)
        return parse_address(fields["sender"]), str(fields["manifest_id"])
    except (ValueError, TypeError, KeyError, AttributeError):
        message = 'The body must be {"sender": "0x...", "manifest_id": "..."}.'
        raise ProblemError(_problem(400, message, "invalid_request")) from None


def _problem(status: int, message: str, code: str) -> Problem:
    return Problem(status, message, "invalid_request_error", code)


def _json(status: int, told: object) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(told), content_type=JSON_TYPE)
