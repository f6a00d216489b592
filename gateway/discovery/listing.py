"""What sources claim, and what becomes of it: who is asked, and who may be paid there. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from gateway.discovery.addresses import orchestrator_uri
from gateway.orchestrators.answers import printable
from gateway.orchestrators.offer import is_internal
from gateway.payments.appraisal import Payees
from network.units import Address

#: The source whose word goes before that of all others.
SETTINGS: Final = "settings"
#: Of one source; whatever it lists beyond is left out.
MOST_LISTED: Final = 1000
#: How many of those that were left out are kept, to be shown.
_MOST_SKIPPED: Final = 50
_LONGEST_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class Claim:
    """One entry of a source, as it stands there."""

    text: str
    #: The account that it was registered for; None where the source names none.
    account: Address | None = None
    #: Why the source itself cannot use it; empty if it can.
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """An entry that is not used, and why."""

    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Rules:
    """Whom the operator does not want."""

    blocked_accounts: frozenset[Address] = frozenset()
    #: As `orchestrator_uri` writes them.
    blocked_uris: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Admitted:
    """What of a source's list is used."""

    #: By URI, in the source's order: the accounts registered for it, None for whichever it names.
    accounts: Mapping[str, frozenset[Address] | None] = field(
        default_factory=lambda: MappingProxyType({})
    )
    skipped: tuple[Skipped, ...] = ()
    #: All that were left out; `skipped` holds the first of them.
    skipped_count: int = 0


def admit(claims: Iterable[Claim], rules: Rules, *, allow_private: bool) -> Admitted:
    """Sort a source's entries. `allow_private`: it may lead us into our own network.

    Where several accounts registered one URI, each of them may be paid there: whose machine it is,
    its own answers say.
    """
    accounts: dict[str, frozenset[Address] | None] = {}
    skipped: list[Skipped] = []
    count = 0
    for claim in claims:
        try:
            uri = _usable(claim, rules, allow_private=allow_private)
            if uri not in accounts and len(accounts) >= MOST_LISTED:
                raise ValueError(f"the list has more than {MOST_LISTED} entries")  # noqa: TRY301
        except ValueError as error:
            count += 1
            if len(skipped) < _MOST_SKIPPED:
                skipped.append(Skipped(printable(claim.text, _LONGEST_SHOWN), str(error)))
            continue
        known = accounts.get(uri, frozenset())
        if claim.account is None or known is None:
            accounts[uri] = None
        else:
            accounts[uri] = known | {claim.account}
    return Admitted(MappingProxyType(accounts), tuple(skipped), count)


def _usable(claim: Claim, rules: Rules, *, allow_private: bool) -> str:
    """The URI. Raises ValueError with the reason why there is none."""
    if claim.problem:
        raise ValueError(claim.problem)
    if claim.account is not None and claim.account in rules.blocked_accounts:
        raise ValueError("its account is on the blocklist")
    uri = orchestrator_uri(claim.text)
    if uri in rules.blocked_uris:
        raise ValueError("it is on the blocklist")
    if not allow_private and is_internal(urlsplit(uri).hostname or ""):
        raise ValueError("it leads to a private address")
    return uri


class Roster:
    """The lists of all sources. Cheap enough to be asked with every payment."""

    def __init__(self, strangers: Collection[str] = ()) -> None:
        """`strangers` are sources whose word must not lead us into private networks."""
        self._strangers = frozenset(strangers)
        self._lists: dict[str, Admitted] = {}
        self._trusted_hosts: frozenset[str] = frozenset()

    def update(self, source: str, admitted: Admitted) -> None:
        self._lists[source] = admitted
        self._trusted_hosts = frozenset(
            urlsplit(uri).hostname or ""
            for name, one in self._lists.items()
            if name not in self._strangers
            for uri in one.accounts
        )

    def may_be_private(self, host: str) -> bool:
        """Whether a host may be in a private network: none that only strangers speak of."""
        return not self._strangers or host.lower() in self._trusted_hosts

    def of(self, source: str) -> Admitted:
        return self._lists.get(source, Admitted())

    def payees(self, uri: str) -> Payees:
        """Whom tickets may pay at `uri`.

        An account named in the settings is the only one. Else those that registered the URI, and the
        one that it names itself where a source that we trust lists it without an account.
        """
        pinned = self.of(SETTINGS).accounts.get(uri)
        if pinned:
            return Payees(pinned, any_named=False)
        found = [one.accounts[uri] for one in self._lists.values() if uri in one.accounts]
        registered = frozenset[Address]().union(*(one for one in found if one is not None))
        return Payees(registered, any_named=None in found)
