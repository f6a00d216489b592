"""Whether what an orchestrator quotes can be paid, looked at before anybody is to be paid."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog

from gateway.orchestrators.offer import Offer
from network.units import Address, ModelId
from network.wire.session import OrchestratorInfo

_log = structlog.get_logger(__name__)


class Objection(Protocol):
    """Why a model cannot be paid for. `gateway.payments.appraisal.Objection`."""

    @property
    def why(self) -> str: ...

    @property
    def may_pass(self) -> bool:
        """Whether the next quote will probably do."""
        ...


@dataclass(frozen=True, slots=True)
class _NoQuote:
    why: str
    may_pass: bool = False


class Appraiser(Protocol):
    """Who judges quotes; nobody does off-chain. `gateway.payments.appraisal.Appraiser`."""

    async def objections(
        self, uri: str, named: Address | None, replies: Mapping[ModelId, OrchestratorInfo]
    ) -> Mapping[ModelId, Objection]:
        """Why models cannot be paid for, in words; those that can be are not in it."""
        ...


async def appraise(
    appraiser: Appraiser,
    offer: Offer,
    refusals: Mapping[ModelId, str],
    before: Mapping[ModelId, Objection],
) -> Mapping[ModelId, Objection]:
    """Objections to an offer's models, logged where they are none of those `before`.

    `refusals` are models that it would not quote for: whatever its list of prices says, they cannot
    be paid for.
    """
    replies = {
        name: model.reply for name, model in offer.models.items() if model.reply is not None
    }
    refused = {name: _NoQuote(why) for name, why in refusals.items() if name not in replies}
    found: dict[ModelId, Objection] = {
        **refused,
        **await appraiser.objections(offer.uri, offer.address, replies),
    }
    for name, objection in found.items():
        if before.get(name) != objection and not objection.may_pass:
            _log.warning(
                "orchestrator_unpayable", uri=offer.uri, model=name, problem=objection.why
            )
    return found
