"""Everybody who may ask, as the surfaces see them: one look for each request."""

import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from gateway.access.anonymous import AnonymousTier
from gateway.access.webhook import AuthWebhook
from gateway.keys import ANONYMOUS, KeyGrant, KeyRing

#: What looks like a key of ours is never shown to anybody else, least of all one that was revoked.
_OURS: Final = re.compile(r"limner_[0-9a-f]{12}_.*", re.DOTALL)


class Access:
    """Our own keys, those that the operator's service knows, and those who show none."""

    #: What a bearer may do; None for one that is not good. Raises ProblemError.
    check: Callable[[str], Coroutine[Any, Any, KeyGrant | None]]

    def __init__(
        self,
        ring: KeyRing,
        *,
        tier: AnonymousTier | None = None,
        webhook: AuthWebhook | None = None,
        has_own_keys: bool = True,
    ) -> None:
        """`has_own_keys` is false where the service alone decides."""
        self._ring = ring
        self._tier = tier
        self._webhook = webhook
        self._has_own_keys = has_own_keys
        # Where nobody else is asked, a key costs what it costs the ring.
        self.check = ring.check if webhook is None else self._check

    @property
    def is_open(self) -> bool:
        """Whether those without a key may ask."""
        return self._tier is not None

    @property
    def tier(self) -> AnonymousTier | None:
        return self._tier

    def unnamed(self, peer: str | None, forwarded: Sequence[str]) -> KeyGrant | None:
        """As `gateway.api.auth.Keys` has it."""
        return None if self._tier is None else self._tier.grant(peer, forwarded)

    def grants(self) -> tuple[KeyGrant, ...]:
        """Of everybody who may ask, as far as they are known."""
        own = self._ring.grants() if self._has_own_keys else ()
        tier = () if self._tier is None else (self._tier.tenant,)
        others = () if self._webhook is None else self._webhook.grants()
        return (*own, *tier, *others)

    def grant_of(self, owner: str) -> KeyGrant | None:
        """What the owner of a request may do now (`KeyGrant.owner`), or the key of this id."""
        if owner == ANONYMOUS:
            return None if self._tier is None else self._tier.tenant
        if self._tier is not None and (client := self._tier.grant_of(owner)) is not None:
            return client
        if self._webhook is not None and (other := self._webhook.grant_of(owner)) is not None:
            return other
        return self._ring.grant_of(owner) if self._has_own_keys else None

    def status(self) -> dict[str, object]:
        """For the operator."""
        return {
            "anonymous": None if self._tier is None else {"addresses": len(self._tier.crowd)},
            "auth_webhook": None if self._webhook is None else self._webhook.status(),
        }

    async def _check(self, bearer: str) -> KeyGrant | None:
        if self._has_own_keys:
            grant = await self._ring.check(bearer)
            if grant is not None or _OURS.fullmatch(bearer) is not None:
                return grant
        if self._webhook is None or not bearer or bearer == ANONYMOUS:
            return None
        return await self._webhook.check(bearer)
