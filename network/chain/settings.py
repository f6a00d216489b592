"""The `[chain]` table, the same for node and gateway.

Either role's settings class has `chain: ChainSettings = ChainSettings()`, and its file may say:

    [chain]
    network = "arbitrum-one"
    rpc = ["https://arb1.arbitrum.io/rpc", "https://second.example/key"]
    gas.max_fee_gwei = 5
"""

from typing import Annotated, Final

from pydantic import Field, SecretStr

from network.runtime.settings import RateSetting, Settings
from network.units import Wei

OFFCHAIN: Final = "offchain"
_GWEI: Final = 10**9

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Gwei = Annotated[int, Field(gt=0, le=1_000_000)]


class GasSettings(Settings):
    """What a transaction may cost, and when a stuck one is replaced."""

    #: Never offered more than this per gas. A redemption that is about to expire may be worth more.
    max_fee_gwei: Gwei = 10
    #: Offered above the base fee. Arbitrum orders by arrival: nothing is needed there.
    tip_wei: Annotated[int, Field(ge=0, le=10**12)] = 0
    #: Added to an estimate, since the L1 part of Arbitrum's gas moves between estimate and block.
    limit_margin_percent: Annotated[int, Field(ge=0, le=400)] = 25
    #: A transaction that is not mined for so long is offered again at a higher fee.
    replace_after_seconds: Seconds = 120.0

    @property
    def max_fee(self) -> Wei:
        """Wei per gas."""
        return Wei(self.max_fee_gwei * _GWEI)


class PriceFeedSettings(Settings):
    """The `[price_feed]` table: who tells what an ETH costs, and what of it is believed."""

    #: A Chainlink aggregator on the configured chain; "" is ETH / USD on Arbitrum One, and none elsewhere.
    address: str = ""
    refresh_seconds: Seconds = 3600.0
    #: A feed is written when the price moved, and at least once a day.
    max_age_seconds: Annotated[float, Field(gt=0, le=2_592_000, allow_inf_nan=False)] = 90_000.0
    #: What an ETH costs is never believed to be less, or more, in the feed's currency.
    lowest: RateSetting | None = None
    highest: RateSetting | None = None


class ChainSettings(Settings):
    """Which chain payments live on, and how it is asked."""

    #: "offchain", "arbitrum-one", or the path of a network.json that a devnet wrote.
    network: str = OFFCHAIN
    #: JSON-RPC endpoints in order of preference; empty: the one that the network file names.
    #: Secret, because most providers put the key into the URL.
    rpc: tuple[SecretStr, ...] = ()
    #: For one answer of one endpoint.
    timeout_seconds: Seconds = 20.0
    #: Between two looks at the chain.
    poll_seconds: Seconds = 3.0
    #: What was read longer ago is not acted on: no quotes, no payments.
    stale_seconds: Seconds = 300.0
    #: Blocks on top of, and with, a transaction's own until its outcome counts.
    confirmations: Annotated[int, Field(ge=1, le=10_000)] = 1
    gas: GasSettings = GasSettings()
