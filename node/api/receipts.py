"""What an attempt's payment brought and what it cost: for a gateway whose connection was cut."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from fractions import Fraction

import orjson
from aiohttp import web

from network.units import Wei
from network.wire.headers import NO_RECEIPT
from node.accounting.model import Receipt
from node.api.refusals import Refusal


@dataclass(frozen=True, slots=True)
class ReceiptService:
    """Attempt ids are 128 random bits of the gateway's: who knows one may know what became of it."""

    receipt: Callable[[str], Awaitable[Receipt | None]]
    is_under_way: Callable[[str], bool]

    async def get_receipt(self, request: web.Request) -> web.Response:
        """Answer from the books, so that what is told survives this process.

        "open" is no last word: what the attempt brings may not be written down yet.
        """
        attempt_id = request.match_info["job_id"]
        under_way = Receipt(Fraction(0), Wei(0), "open") if self.is_under_way(attempt_id) else None
        found = await self.receipt(attempt_id) or under_way
        if found is None:
            raise Refusal(404, NO_RECEIPT, "no_receipt")
        body = {
            "credited": f"{found.credited.numerator}/{found.credited.denominator}",
            "charged": str(found.charged),
            "state": found.state,
        }
        return web.Response(body=orjson.dumps(body), content_type="application/json")
