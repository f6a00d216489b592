"""The links that are up, by the account of their node, and connections over them."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from gateway.orchestrators.connecting import link_uri
from network.identity import checksum
from network.link.connection import Link
from network.units import Address

P = TypeVar("P", bound=asyncio.Protocol)

_REPLACED: Final = "the node linked anew"


@dataclass(frozen=True, slots=True)
class Joined:
    """A link whose node has proven its account."""

    account: Address
    link: Link
    #: It takes jobs over the link; otherwise it only pushes.
    takes_jobs: bool
    #: Where it was dialled from.
    remote: str
    #: Unix seconds.
    since: float
    #: Where a node that only pushes can be called, by its own word.
    uri: str = ""


class Switchboard:
    """At most one link a node: a node that comes again knows better than we that its old one is dead."""

    def __init__(self) -> None:
        self._links: dict[Address, Joined] = {}
        self._listeners: list[Callable[[Joined], None]] = []
        self._named: Collection[Address] = ()
        #: Why a named node is not linked, as far as there is more to say than that.
        self._last_words: dict[Address, str] = {}

    def __len__(self) -> int:
        return len(self._links)

    def expect(self, nodes: Collection[Address]) -> None:
        """Name the nodes that may link."""
        self._named = nodes

    def subscribe(self, listener: Callable[[Joined], None]) -> None:
        """`listener` hears whose link has come or gone."""
        self._listeners.append(listener)

    def connect(self, account: Address, factory: Callable[[], P]) -> tuple[asyncio.Transport, P]:
        """A connection to the node; `gateway.orchestrators.connecting.Connector`. Raises OSError."""
        joined = self._links.get(account)
        if joined is None:
            why = self._last_words.get(account, "")
            raise ConnectionRefusedError("its node is not linked" + (f": {why}" if why else ""))
        if not joined.takes_jobs:
            raise ConnectionRefusedError("its node is linked for news only")
        return joined.link.open_stream(factory)

    def join(self, joined: Joined) -> None:
        """Use a new link from now on; an older one of its node is closed."""
        former = self._links.get(joined.account)
        self._links[joined.account] = joined
        if former is not None:
            former.link.close(_REPLACED)
        self._tell(joined)

    def leave(self, joined: Joined, why: str) -> None:
        """A link is gone."""
        if self._links.get(joined.account) is joined:
            del self._links[joined.account]
            self._last_words[joined.account] = why
            self._tell(joined)

    def close(self, why: str) -> None:
        """Close all of them."""
        for joined in tuple(self._links.values()):
            joined.link.close(why)

    def states(self) -> list[Mapping[str, Any]]:
        """For `/status`: every named node, linked or not."""
        return [self._state(account) for account in sorted(self._named)]

    def _state(self, account: Address) -> Mapping[str, Any]:
        joined = self._links.get(account)
        return {
            "node": checksum(account),
            "uri": link_uri(account),
            "linked": joined is not None,
            "takes_jobs": joined is not None and joined.takes_jobs,
            "remote": "" if joined is None else joined.remote,
            "since": None if joined is None else round(joined.since, 3),
            "connections": 0 if joined is None else len(joined.link),
            "last_lost": self._last_words.get(account, ""),
        }

    def _tell(self, joined: Joined) -> None:
        for listener in self._listeners:
            listener(joined)
