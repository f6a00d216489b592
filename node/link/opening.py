"""The node's links as the settings want them."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from yarl import URL

from network.identity import Signer
from network.runtime.clock import Clock
from network.runtime.supervisor import Supervisor
from node.api.listener import Connections, connection_factory
from node.config.settings import GatewayLinkSettings
from node.discovery.advertiser import Advertiser
from node.engine.backend import Engine
from node.jobs.runner import JobRunner
from node.link.dialer import Destination, Dialer
from node.link.herald import Herald


@dataclass(frozen=True, slots=True)
class Links:
    """All links of this node."""

    dialers: Sequence[Dialer] = ()
    herald: Herald | None = None

    def states(self) -> list[dict[str, object]]:
        """For `/status`."""
        return [dialer.state() for dialer in self.dialers]

    def changed(self) -> None:
        """Tell gateways how the node is now."""
        if self.herald is not None:
            self.herald.changed()


def start_links(
    gateways: Sequence[GatewayLinkSettings],
    supervisor: Supervisor,
    *,
    signer: Signer,
    connections: Connections,
    advertiser: Advertiser,
    runner: JobRunner,
    engine: Engine,
    clock: Clock,
    randomness: random.Random,
    undo: Callable[[Callable[[], None]], object],
) -> Links:
    """Dial the gateways, and go on doing so for as long as the supervisor lives.

    `undo` gets what takes back a subscription.
    """
    if not gateways:
        return Links()
    herald = Herald(
        offers=advertiser.offers,
        jobs_of=runner.places_of,
        price=advertiser.price_for,
        is_closed=lambda: advertiser.is_closed,
    )
    dialers = [
        Dialer(
            Destination(
                URL(one.url),
                one.address,
                jobs=one.jobs,
                own_uri="" if one.jobs else advertiser.service_uri,
                verify_tls=one.verify_tls,
            ),
            signer,
            serve=connection_factory(connections),
            clock=clock,
            randomness=randomness,
            on_linked=lambda _link: herald.changed(),
        )
        for one in gateways
    ]
    herald.tell(
        lambda: [
            (dialer.destination.account, dialer.link)
            for dialer in dialers
            if dialer.link is not None
        ]
    )
    undo(engine.subscribe(herald.changed))
    undo(runner.subscribe(herald.changed))
    supervisor.start("news for gateways", herald.run)
    for dialer in dialers:
        supervisor.start(f"link to {dialer.destination.url.host}", dialer.run)
    return Links(dialers, herald)
