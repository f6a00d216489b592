"""Whether what an orchestrator quotes can be paid, looked at before anybody is to be paid."""

from collections.abc import Mapping
from typing import Protocol

import structlog

from gateway.orchestrators.offer import Offer
from network.units import Address, ModelId
from network.wire.session import OrchestratorInfo

_log = structlog.get_logger(__name__)


class Appraiser(Protocol):
    """Who judges quotes; nobody does off-chain. `gateway.payments.appraisal.Appraiser`."""

    async def objections(
        self, uri: str, named: Address | None, replies: Mapping[ModelId, OrchestratorInfo]
    ) -> Mapping[ModelId, str]:
        """Why models cannot be paid for, in words; those that can be are not in it."""
        ...


async def appraise(
    appraiser: Appraiser,
    offer: Offer,
    refusals: Mapping[ModelId, str],
    before: Mapping[ModelId, str],
) -> Mapping[ModelId, str]:
    """Objections to an offer's models, logged where they are none of those `before`.

    `refusals` are models that it would not quote for: whatever its list of prices says, they cannot
    be paid for.
    """
    replies = {
        name: model.reply for name, model in offer.models.items() if model.reply is not None
    }
    refused = {name: why for name, why in refusals.items() if name not in replies}
    found = {**refused, **await appraiser.objections(offer.uri, offer.address, replies)}
    for name, why in found.items():
        if before.get(name) != why:
            _log.warning("orchestrator_unpayable", uri=offer.uri, model=name, problem=why)
    return found
