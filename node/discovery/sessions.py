"""Session tokens: who asked for the node's terms may work by them for half an hour."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from network.identity import auth_token, random_session_id
from network.units import Address
from network.wire.codec import AuthToken

LIFETIME_SECONDS: Final = 30 * 60
#: How far the machine's clock may be put back while tokens are out.
_SLOW_CLOCK_SECONDS: Final = 10 * 60
_SESSION_ENTROPY: Final = 4
_LARGEST_EXPIRATION: Final = 2**63 - 1


class TokenFault(StrEnum):
    """Why a token is refused, in the words gateways match (Livepeer wire, 3.4)."""

    MISSING = "missing auth token"
    INVALID = "invalid auth token"
    EXPIRED = "expired auth token"


@dataclass(frozen=True, slots=True)
class Sessions:
    """Makes and checks tokens out of one secret.

    A token of Livepeer names nobody, so that whoever sees one can use it. With `bound`, the
    HMAC's key is made for one sender, and the token is worth nothing to another.
    """

    secret: bytes
    bound: bool

    def issue(
        self, sender: Address | None, now: float, session_id: str | None = None
    ) -> AuthToken:
        """Return a fresh token, of a session of its own unless one is named; `now` in unix seconds."""
        if session_id is None:
            session_id = random_session_id(secrets.token_bytes(_SESSION_ENTROPY))
        expiration = int(now) + LIFETIME_SECONDS
        return AuthToken(
            auth_token(self._key(sender), session_id, expiration), session_id, expiration
        )

    def check(
        self, token: AuthToken | None, sender: Address | None, now: float
    ) -> TokenFault | None:
        """Return what is wrong with a token that `sender` shows, or None."""
        if token is None or not token.token:
            return TokenFault.MISSING
        if not 0 <= token.expiration <= _LARGEST_EXPIRATION:
            return TokenFault.INVALID
        good = auth_token(self._key(sender), token.session_id, token.expiration)
        if not hmac.compare_digest(good, token.token):
            return TokenFault.INVALID
        # The HMAC does not tell where the session ends and the expiration begins: a digit moved from
        # one to the other would make a token that lasts for ever.
        if token.expiration > now + LIFETIME_SECONDS + _SLOW_CLOCK_SECONDS:
            return TokenFault.INVALID
        return TokenFault.EXPIRED if now > token.expiration else None

    def _key(self, sender: Address | None) -> bytes:
        if not self.bound or sender is None:
            return self.secret
        return hmac.digest(self.secret, sender, hashlib.sha256)
