"""What the surfaces of a gateway stand on."""

import random
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from typing import Final

from gateway.access.access import Access
from gateway.accounting.journal import Journal
from gateway.api.admission import Admission
from gateway.api.finishing import Finisher
from gateway.api.page import Page
from gateway.api.running import RunningRequests
from gateway.config import GatewaySettings
from gateway.discovery.opening import (
    Discovery,
)
from gateway.dispatch import Dispatcher, Showcase
from gateway.dispatch.paying import TicketPaying
from gateway.dispatch.spot_checks import SpotChecks
from gateway.keys import KeyRing
from gateway.link.switchboard import Switchboard
from gateway.orchestrators.directory import Directory
from gateway.payments.allowance import Allowances
from gateway.promises.interrupted import Interrupted
from gateway.repeats.opening import Repeats
from gateway.storage.store import ImageStore
from network.prices import EthRates
from network.runtime.clock import Clock
from network.runtime.database import Database
from network.units import Address

VERSION: Final = installed_version("limner")


@dataclass(frozen=True, slots=True)
class Parts:
    settings: GatewaySettings
    clock: Clock
    randomness: random.Random
    account: Address
    database: Database
    journal: Journal
    #: What an earlier process was cut off from.
    interrupted: Interrupted
    keys: KeyRing
    access: Access
    store: ImageStore
    finisher: Finisher
    directory: Directory
    dispatcher: Dispatcher
    allowances: Allowances
    admission: Admission
    running: RunningRequests
    eth_rates: EthRates
    showcase: Showcase
    page: Page | None
    paying: TicketPaying | None
    discovery: Discovery
    checks: SpotChecks | None
    repeats: Repeats | None
    switchboard: Switchboard
    link_url: str
