"""What the signer answers instead of a payment, with the statuses that its clients act on."""

from collections.abc import Mapping
from typing import Final

from network.errors import LimnerError

#: The quote or the session is too old: ask the orchestrator anew and come back.
REFRESH_SESSION: Final = 480
PRICE_EXCEEDED: Final = 481
#: What was paid before covers this call.
NO_TICKETS_NEEDED: Final = 482
BAD_REQUEST: Final = 400
FORBIDDEN: Final = 403
UNAVAILABLE: Final = 503

#: Which orchestrator to ask anew; goes with REFRESH_SESSION.
ORCHESTRATOR_URL: Final = "Livepeer-Orchestrator-URL"


class SigningRefusedError(LimnerError):
    """Raised on the way to a payment; the message is for the client."""

    def __init__(
        self, status: int, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})


def refresh_session(orchestrator_url: str, why: str) -> SigningRefusedError:
    """The client has to call GetOrchestrator at `orchestrator_url` before it can be served."""
    # The client's own word, which must not break out of a header.
    is_plain = orchestrator_url.isascii() and orchestrator_url.isprintable()
    url = orchestrator_url if is_plain else ""
    return SigningRefusedError(REFRESH_SESSION, why, {ORCHESTRATOR_URL: url})
