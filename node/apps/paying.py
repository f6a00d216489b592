"""What one request pays with, and what its payer is told of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from network.wire.headers import CREDIT
from network.wire.session import Payment
from node.accounting.journal import PaymentRefusedError
from node.accounting.model import Credit
from node.apps.refusal import Refusal
from node.payments.till import NotPaid, Till

#: A refusal's reason: it is not known whether the books have what the payment brought.
JOURNAL: Final = "journal"


@dataclass(slots=True)
class Paying:
    """One request's payment; `headers` tell what it brought, once it was looked at."""

    #: None off-chain, where nobody pays by ticket.
    till: Till | None
    payment: Payment
    attempt_id: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def pay(self) -> Callable[[], Awaitable[Credit | None]] | None:
        """What looks at the payment; None where there is nothing to look at."""
        return None if self.till is None else self._look

    def told(self, refusal: Refusal) -> Refusal:
        """Return the refusal with what the payment brought all the same."""
        if refusal.reason == JOURNAL:
            # It may not be on disk: the receipt will tell.
            return refusal
        return refusal.with_headers(self.headers)

    async def _look(self) -> Credit | None:
        """Raises PaymentRefusedError where it is no payment, ChainError."""
        if self.till is None:
            return None
        found = await self.till.take(self.payment, self.attempt_id)
        if isinstance(found, NotPaid):
            raise PaymentRefusedError(found.reason)
        self.headers[CREDIT] = f"{found.amount.numerator}/{found.amount.denominator}"
        return found
