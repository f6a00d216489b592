"""Whom the operator does not buy from, whatever they ask for. Pure."""

from dataclasses import dataclass

from gateway.orchestrators.offer import Offer
from gateway.orchestrators.selection import Reason
from network.capabilities import new_enough
from network.identity import checksum
from network.units import Address


@dataclass(frozen=True, slots=True)
class Terms:
    """The operator's own; they hold for every request."""

    blocked: frozenset[Address] = frozenset()
    #: The oldest version that is bought from, "" for any; compared as Livepeer does (wire, 2.3).
    min_version: str = ""

    def objection(self, offer: Offer) -> tuple[Reason, str] | None:
        """Why nothing of an offer is bought, whatever the model."""
        if offer.address is not None and offer.address in self.blocked:
            return Reason.BLOCKED, checksum(offer.address)
        version = offer.capabilities.version
        if not new_enough(version, self.min_version):
            return Reason.OUTDATED, f"{version or 'unknown'} < {self.min_version}"
        return None
