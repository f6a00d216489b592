"""The pool and the registries of a real chain, and what strangers write into them."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path

import pytest
from eth_account.signers.local import LocalAccount
from hexbytes import HexBytes

from gateway.discovery.listing import Admitted, Rules, admit
from gateway.discovery.onchain import OnChain, resolve
from gateway.discovery.sources import SourceError
from network.chain.contracts import LivepeerChain, open_chain
from network.chain.model import ChainError, ChainUnavailableError
from network.chain.profiles import profile_of
from network.identity import keccak, parse_address
from network.runtime.clock import SystemClock
from network.units import Address
from tests.devnet import Devnet
from tests.gateway.test_paid_app import network_file

PUBLIC = "93.184.216.34"


def address_of(account: LocalAccount) -> Address:
    return parse_address(account.address)


async def register(devnet: Devnet, account: LocalAccount, registry: str, uri: str) -> None:
    functions = devnet.contracts.contract(registry).functions
    await devnet.contracts.send(account, functions.setServiceURI(uri))


async def register_bytes(devnet: Devnet, account: LocalAccount, text: bytes) -> None:
    """What no library would send: a string that is no UTF-8."""
    padded = text + bytes(-len(text) % 32)
    data = keccak(b"setServiceURI(string)")[:4] + b"".join(
        (int.to_bytes(32, 32, "big"), int.to_bytes(len(text), 32, "big"), padded)
    )
    for registry in ("AIServiceRegistry", "ServiceRegistry"):
        to = devnet.contracts.contract(registry).address
        await devnet.contracts.send(account, {"to": to, "data": HexBytes(data), "gas": 2_000_000})


@pytest.fixture
async def chain(devnet: Devnet, tmp_path: Path) -> AsyncIterator[LivepeerChain]:
    profile = await asyncio.to_thread(profile_of, str(await network_file(devnet, tmp_path)))
    assert profile is not None
    async with open_chain(profile, profile.rpc, SystemClock()) as opened:
        yield opened


async def listed(source: OnChain, *, allow_private: bool = False) -> Admitted:
    return admit(await source.read(), Rules(), allow_private=allow_private)


async def test_the_pool_is_followed_as_it_changes(devnet: Devnet, chain: LivepeerChain) -> None:
    """A service URI that changes, one who joins, and one who leaves."""
    big = await devnet.orchestrator(300, "https://big.example:8935")
    small = await devnet.orchestrator(100, "https://small.example")
    source = OnChain(chain, allow_private=True)
    assert dict((await listed(source)).accounts) == {
        "https://big.example:8935": frozenset({address_of(big)}),
        "https://small.example:8935": frozenset({address_of(small)}),
    }
    await devnet.contracts.set_service_uri(small, "https://moved.example")
    middle = await devnet.orchestrator(200, "https://middle.example")
    assert list((await listed(source)).accounts) == [
        "https://big.example:8935",
        "https://middle.example:8935",
        "https://moved.example:8935",
    ]
    assert await chain.pool() == await chain.pool((address_of(small), address_of(big)))
    assert await chain.pool() == tuple(map(address_of, (big, middle, small)))

    bonding = devnet.contracts.contract("BondingManager").functions
    await devnet.next_round()
    await devnet.contracts.send(big, bonding.unbond(300 * 10**18))
    assert "https://big.example:8935" not in (await listed(source)).accounts


async def test_the_ai_registry_goes_before_the_older_one(
    devnet: Devnet, chain: LivepeerChain
) -> None:
    both = await devnet.orchestrator(300, "https://both.example")
    old = await devnet.orchestrator(200, "https://old.example")
    wrong = await devnet.orchestrator(100, "https://right.example")
    await register(devnet, both, "ServiceRegistry", "https://video.example")
    await register(devnet, old, "AIServiceRegistry", "")
    await register(devnet, wrong, "AIServiceRegistry", "not an address")
    assert list((await listed(OnChain(chain, allow_private=True))).accounts) == [
        "https://both.example:8935",
        "https://old.example:8935",
        "https://right.example:8935",
    ]


async def test_what_strangers_register_is_skipped_with_the_reason(
    devnet: Devnet, chain: LivepeerChain
) -> None:
    asked: list[str] = []

    async def resolved(host: str) -> Collection[str]:
        asked.append(host)
        return {"inside.example": ["10.1.2.3"], "v6.example": ["fd00::1"]}.get(host, [PUBLIC])

    written = {
        900: "https://good.example",
        800: "https://127.0.0.1:8935",
        700: "https://inside.example",
        600: "https://v6.example",
        500: "http://u:p@good.example",
        400: "https://2130706433",
        300: "x" * 5000,
        200: "https://localhost",
        150: "",
    }
    for stake, uri in written.items():
        await devnet.next_round()  # a round is shorter than all these registrations
        account = await devnet.orchestrator(stake, uri or "https://nothing.example")
        if not uri:
            await register(devnet, account, "AIServiceRegistry", "")
            await register(devnet, account, "ServiceRegistry", "")
    await devnet.next_round()
    broken = await devnet.orchestrator(100, "https://broken.example")
    await register_bytes(devnet, broken, b"https://\xff\xfe.example")
    source = OnChain(chain, allow_private=False, resolve=resolved)
    admitted = await listed(source)
    assert list(admitted.accounts) == ["https://good.example:8935"]
    assert [one.why for one in admitted.skipped] == [
        "it leads to a private address",
        "it leads to a private address",
        "it leads to a private address",
        "it is more than scheme, host, port and path",
        "its host is a number that is no IP address",
        "it has more than 200 characters",
        "it leads to a private address",
        "it registered no address",
        "what it registered cannot be read",
    ]
    assert all(len(one.text) <= 100 for one in admitted.skipped)
    assert set(asked) <= {"good.example", "127.0.0.1", "inside.example", "v6.example", "localhost"}


async def test_a_chain_out_of_reach_is_no_empty_pool(tmp_path: Path, devnet: Devnet) -> None:
    profile = await asyncio.to_thread(profile_of, str(await network_file(devnet, tmp_path)))
    assert profile is not None
    async with open_chain(
        profile, ("http://127.0.0.1:9",), SystemClock(), timeout_seconds=1
    ) as chain:
        with pytest.raises(SourceError):
            await OnChain(chain, allow_private=True).read()


async def test_names_are_resolved_by_the_system() -> None:
    assert "127.0.0.1" in await resolve("localhost")
    assert "127.0.0.1" in await resolve("2130706433")
    assert await resolve("no-such-host.invalid") == ()


class Registry:
    """A pool that tests change; `service_uri` fails where it says so."""

    def __init__(self, *accounts: Address) -> None:
        self.accounts = accounts
        self.failure: ChainError | None = None

    async def pool(self, known: Sequence[Address] = ()) -> tuple[Address, ...]:
        assert set(known) <= {Address(bytes([number]) * 20) for number in (1, 2)}
        return self.accounts

    async def service_uri(self, orchestrator: Address, *, ai: bool = True) -> str:
        if ai and self.failure is not None and orchestrator == self.accounts[-1]:
            raise self.failure
        return f"https://{orchestrator.hex()}.example" if ai else ""


async def test_a_pool_that_is_empty_all_at_once_is_looked_at_twice() -> None:
    registry = Registry(Address(b"\x01" * 20))
    source = OnChain(registry, allow_private=True)
    assert len(await source.read()) == 1
    registry.accounts = ()
    with pytest.raises(SourceError, match="all of a sudden"):
        await source.read()
    assert await source.read() == []


async def test_one_registry_entry_that_fails_is_skipped_and_an_endpoint_that_fails_keeps_all() -> (
    None
):
    registry = Registry(Address(b"\x01" * 20), Address(b"\x02" * 20))
    source = OnChain(registry, allow_private=True)
    registry.failure = ChainError("a revert")
    assert [one.problem for one in await source.read()] == [
        "",
        "what it registered cannot be read",
    ]
    registry.failure = ChainUnavailableError("no endpoint answers")
    with pytest.raises(SourceError, match="no endpoint answers"):
        await source.read()
