"""A node registers itself on a chain; a gateway that is told of nothing but that chain buys from it."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.config import GatewaySettings
from network.devnet.deployment import ETHER, account_of
from network.units import Wei
from node.__main__ import main as node_command
from node.app import RunningNode, open_node
from node.config.settings import NodeSettings
from scripts.local_network.network import free_port
from tests.devnet import CHAIN_ID, Devnet
from tests.gateway.test_app import Stage, serving
from tests.gateway.waiting import until_async
from tests.node.fakes import MODEL, FakeEngine
from tests.node.nodes import PASSPHRASE, settings_for

NODE = account_of(b"\x11" * 32)
#: The key of `make_cheap_identity`.
GATEWAY = account_of(b"\x22" * 32)
NOWHERE = "https://127.0.0.1:9"
SIDE = 64
PRICE = Fraction(5, 2)


@dataclass
class Market:
    """A chain, and whoever works on it."""

    devnet: Devnet
    folder: Path

    uri: str = field(default_factory=lambda: f"https://127.0.0.1:{free_port()}")

    @property
    def network(self) -> Path:
        return self.folder / "network.json"

    async def funded(self) -> None:
        contracts = self.devnet.contracts
        await asyncio.to_thread(
            contracts.save, self.network, CHAIN_ID, self.devnet.chain.url, "anvil"
        )
        for account in (NODE, GATEWAY):
            await self.devnet.rpc("anvil_setBalance", account.address, hex(100 * ETHER))
        mint = contracts.contract("LivepeerToken").functions.mint(NODE.address, 100 * ETHER)
        await contracts.send(contracts.owner, mint)
        await self.devnet.next_round()
        await contracts.fund_sender(GATEWAY, Wei(ETHER), Wei(ETHER))

    async def node_settings(self) -> NodeSettings:
        return await settings_for(
            self.folder / "node",
            listen=self.uri,
            chain={"network": str(self.network), "poll_seconds": 0.1},
            defaults_policy="as-sent",
        )

    @asynccontextmanager
    async def node(self) -> AsyncIterator[RunningNode]:
        settings = await self.node_settings()
        async with open_node(settings, engine_opener=FakeEngine().opener) as node:
            assert node.url == self.uri
            yield node

    async def activate(self, uri: str) -> None:
        """`limner-node activate`, before the node runs: one program at a time has its key."""
        settings = await self.node_settings()
        config = self.folder / "node.toml"
        config.write_text(
            f'data_dir = "{settings.data_dir}"\n'
            f'[keystore]\npassphrase = "{PASSPHRASE}"\n'
            f'[chain]\nnetwork = "{self.network}"\npoll_seconds = 0.1\n'
        )
        words = ["activate", "--stake", "50", "--reward-cut", "10", "--service-uri", uri, "--yes"]
        arguments = [*words, "--config", str(config)]
        result = await asyncio.to_thread(CliRunner().invoke, node_command, arguments)
        assert result.exit_code == 0, result.output
        assert result.stdout.count("Done: transaction 0x") == 4
        await self.devnet.next_round()

    async def move(self, uri: str) -> None:
        """What `limner-node service-uri` would send."""
        await self.devnet.contracts.set_service_uri(NODE, uri)

    async def leave(self) -> None:
        """What `limner-node unbond` would send."""
        unbond = self.devnet.contracts.contract("BondingManager").functions.unbond(50 * ETHER)
        await self.devnet.contracts.send(NODE, unbond)

    def gateway(self, **discovery: Any) -> GatewaySettings:
        """Not one orchestrator, webhook or signer: a chain, and how soon it is looked at."""
        return GatewaySettings.model_validate(
            {
                "listen": "127.0.0.1:0",
                "admin_listen": "127.0.0.1:0",
                "data_dir": self.folder / "gateway",
                "chain": {"network": str(self.network), "poll_seconds": 0.1},
                "server": {"shutdown_seconds": 0.3},
                "routing": {"refresh_seconds": 0.5},
                "discovery": {"chain_seconds": 0.3, **discovery},
            }
        )


@pytest.fixture
async def market(devnet: Devnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Market:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = Market(devnet, tmp_path)
    await made.funded()
    return made


async def known(stage: Stage) -> dict[str, Any]:
    return {one["uri"]: one for one in (await stage.status())["orchestrators"]}


async def bought(stage: Stage) -> int:
    response = await stage.post(model_id=MODEL, width=SIDE, height=SIDE, num_inference_steps=1)
    return response.status


def rows(books: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{books}?mode=ro", uri=True)) as database:
        return database.execute(query).fetchall()


def sold_by(folder: Path) -> dict[str, tuple[Fraction, int]]:
    """By attempt: what the node says that it got, and what it took for the work."""
    books = folder / "node" / "data" / "node.sqlite"
    credits_of = dict(rows(books, "SELECT attempt_id, credit FROM payments"))
    query = "SELECT j.attempt_id, e.charged FROM jobs j JOIN ends e USING (job_id)"
    return {a: (Fraction(credits_of.get(a, "0")), int(c or 0)) for a, c in rows(books, query)}


def bought_by(folder: Path) -> dict[str, tuple[Fraction, int]]:
    """The same in the gateway's own books."""
    query = "SELECT attempt_id, credited, charged FROM receipts"
    found = rows(folder / "gateway" / "gateway.sqlite3", query)
    return {attempt: (Fraction(credited), int(charged)) for attempt, credited, charged in found}


async def test_a_gateway_that_knows_nothing_but_the_chain_finds_and_pays_a_registered_node(
    market: Market,
) -> None:
    await market.activate(market.uri)
    async with market.node(), serving(market.gateway()) as stage:
        await until_async(lambda: is_payable(stage, market.uri), 30)
        told = (await known(stage))[market.uri]
        assert told["sources"] == ["chain"]
        assert told["address"] == NODE.address
        assert [await bought(stage) for _ in range(3)] == [200, 200, 200]
        await market.leave()
        await until_async(lambda: has_gone(stage, market.uri), 30)
    ours, theirs = bought_by(market.folder), sold_by(market.folder)
    assert len(ours) == 3
    assert ours == theirs
    assert {charged for _, charged in ours.values()} == {int(SIDE * SIDE * PRICE)}
    assert sum(credited for credited, _ in ours.values()) >= 3 * SIDE * SIDE * PRICE


async def is_payable(stage: Stage, uri: str) -> bool:
    """Whether one is known, and nothing speaks against paying it."""
    one = (await known(stage)).get(uri)
    return one is not None and one["state"] == "ready" and "objection" not in str(one["models"])


async def has_gone(stage: Stage, uri: str) -> bool:
    return uri not in await known(stage)


async def test_a_registered_address_that_changes_is_followed_and_a_dead_chain_forgets_nobody(
    market: Market,
) -> None:
    """The gateway starts again with its chain's endpoint gone: it knows where the node was."""
    await market.activate(NOWHERE)
    async with market.node():
        async with serving(market.gateway()) as stage:
            assert list(await known(stage)) == [NOWHERE]
            await market.move(market.uri)
            await until_async(lambda: is_payable(stage, market.uri), 30)
            assert list(await known(stage)) == [market.uri]
            assert await bought(stage) == 200
        text = market.network.read_text()
        market.network.write_text(text.replace(market.devnet.chain.url, "http://127.0.0.1:9"))
        async with serving(market.gateway()) as stage:
            assert list(await known(stage)) == [market.uri]
            await until_async(lambda: has_problem(stage), 30)
            # Without its chain it knows of no deposit: it says so, and loses nothing.
            assert await bought(stage) == 503
            assert list(await known(stage)) == [market.uri]
        market.network.write_text(text)
        async with serving(market.gateway()) as stage:
            assert await bought(stage) == 200
    assert len(bought_by(market.folder)) == 2
    assert bought_by(market.folder) == sold_by(market.folder)


async def has_problem(stage: Stage) -> bool:
    sources = {one["source"]: one for one in (await stage.status())["sources"]}
    return bool(sources["chain"]["problem"]) and sources["chain"]["listed"] == 1


async def test_tickets_go_to_the_registered_account_and_to_nobody_else(market: Market) -> None:
    """A stranger registers the node's address. What the node asks for is not the stranger's to get."""
    await market.activate(NOWHERE)
    await market.devnet.orchestrator(50, market.uri)
    await market.devnet.next_round()
    async with market.node(), serving(market.gateway()) as stage:
        await until_async(lambda: has_objection(stage, market.uri), 30)
        assert await bought(stage) == 503
        assert "not the account known for" in str(await known(stage))

        # Now two share the address: the one that is there is paid.
        await market.move(market.uri)
        await until_async(lambda: is_payable(stage, market.uri), 30)
        assert await bought(stage) == 200
    assert len(bought_by(market.folder)) == 1
    assert bought_by(market.folder) == sold_by(market.folder)


async def has_objection(stage: Stage, uri: str) -> bool:
    return "objection" in str((await known(stage)).get(uri))


async def test_on_livepeers_own_chain_nobody_is_led_into_private_networks(market: Market) -> None:
    await market.devnet.orchestrator(50, market.uri)
    async with serving(market.gateway(allow_private=False)) as stage:
        await until_async(lambda: is_skipped(stage, market.uri), 30)
        assert not await known(stage)


async def is_skipped(stage: Stage, uri: str) -> bool:
    told = {"entry": uri, "reason": "it leads to a private address"}
    return any(told in one["skipped"] for one in (await stage.status())["sources"])
