"""The signer's three calls over HTTP, as go-livepeer's signer answers them."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
import structlog
from aiohttp import web

from gateway.signer.authorization import Authorization
from gateway.signer.desk import PaymentDesk
from gateway.signer.market import Market
from gateway.signer.refusal import BAD_REQUEST, UNAVAILABLE, SigningRefusedError
from gateway.signer.requests import MAX_BODY_BYTES, parse_payment_request
from network.chain.model import ChainError
from network.identity import Signer, checksum, session_request_signature

_log = structlog.get_logger(__name__)

_OK: Final = 200
_INTERNAL: Final = 500
_REASONS: Final = {480: "Refresh Session", 481: "Price Exceeded", 482: "No Tickets Needed"}

Handling = Callable[[web.Request], Awaitable[web.StreamResponse]]


class SignerCalls:
    """The handlers; each asks the webhook first."""

    def __init__(
        self, signer: Signer, authorization: Authorization, desk: PaymentDesk, market: Market
    ) -> None:
        self._authorization = authorization
        self._desk = desk
        self._market = market
        # It covers the account only: one for the life of the process.
        self._account = {
            "address": checksum(signer.address),
            "signature": "0x" + session_request_signature(signer).hex(),
        }

    async def sign_orchestrator_info(self, request: web.Request) -> web.Response:
        """What a client proves the payer's account with in GetOrchestrator."""
        await self._authorization.grant(request.headers.items(), {})
        return _json(_OK, self._account)

    async def generate_live_payment(self, request: web.Request) -> web.Response:
        """The tickets for one call, or the status that says why there are none."""
        try:
            wanted = parse_payment_request(await request.read())
        except ValueError as error:
            raise SigningRefusedError(BAD_REQUEST, str(error)) from None
        state = self._desk.read_state(wanted)
        told = {"App": wanted.app} if state is None else state.tell()
        grant = await self._authorization.grant(request.headers.items(), told)
        reply = await self._desk.pay(wanted, state, grant)
        return _json(
            _OK,
            {"payment": reply.payment, "segCreds": reply.credentials, "state": reply.state},
        )

    async def discover_orchestrators(self, request: web.Request) -> web.Response:
        await self._authorization.grant(request.headers.items(), {})
        return _json(_OK, self._market.listing(frozenset(request.query.getall("caps", ()))))


def signer_application(calls: SignerCalls) -> web.Application:
    """What a runner serves."""
    application = web.Application(middlewares=[_answer_errors], client_max_size=MAX_BODY_BYTES)
    application.router.add_post("/sign-orchestrator-info", calls.sign_orchestrator_info)
    application.router.add_post("/generate-live-payment", calls.generate_live_payment)
    application.router.add_get("/discover-orchestrators", calls.discover_orchestrators)
    return application


@web.middleware
async def _answer_errors(request: web.Request, handler: Handling) -> web.StreamResponse:
    """Every failure in the one shape that clients read."""
    try:
        return await handler(request)
    except SigningRefusedError as refusal:
        _log.info("refused", path=request.path, status=refusal.status, reason=str(refusal))
        return _error(refusal.status, str(refusal), refusal.headers)
    except ChainError as error:
        _log.warning("chain_not_known", path=request.path, problem=str(error))
        return _error(UNAVAILABLE, "the chain cannot be asked at the moment")
    except web.HTTPException as error:
        allowed = {name: text for name, text in error.headers.items() if name == "Allow"}
        return _error(error.status, error.reason, allowed)
    except Exception:  # noqa: BLE001 - whatever it was, the client gets an answer it can read
        _log.exception("call_failed", path=request.path)
        return _error(_INTERNAL, "the signer failed; its log tells why")


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return _json(status, {"error": {"message": message}}, headers)


def _json(status: int, body: Any, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=orjson.dumps(body),
        status=status,
        reason=_REASONS.get(status),
        content_type="application/json",
        headers=headers,
    )
