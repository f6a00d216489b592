"""An operator registers, is paid, and withdraws, by the commands, on a real chain."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hexbytes import HexBytes
from web3.types import TxParams

from network.chain.contracts import open_chain
from network.chain.model import SignedTicket
from network.chain.profiles import profile_of
from network.devnet.deployment import ETHER
from network.identity import KeySigner, parse_address
from network.payments.tickets import CERTAIN, Ticket, rand_hash
from network.runtime.clock import SystemClock
from network.units import Wei
from node.__main__ import main
from tests.devnet import CHAIN_ID, Devnet

URI = "https://node.example:8936"


class Operator:
    """Types commands; each is a process's worth of work, in a loop of its own."""

    def __init__(self, devnet: Devnet, folder: Path) -> None:
        self.devnet = devnet
        self.network = folder / "network.json"
        self.config = folder / "node.toml"
        self.address = ""

    async def settle_in(self, *, chain_id: int = CHAIN_ID) -> None:
        save, url = self.devnet.contracts.save, self.devnet.chain.url
        await asyncio.to_thread(save, self.network, chain_id, url, "anvil")
        data_dir = self.config.with_name("data")
        self.config.write_text(
            f'data_dir = "{data_dir}"\n[chain]\nnetwork = "{self.network}"\npoll_seconds = 0.1\n'
        )
        self.address = (await self.types("address")).output.strip().splitlines()[-1]

    async def types(self, *words: str, answer: str = "") -> Result:
        arguments = [*words, "--config", str(self.config)]
        return await asyncio.to_thread(CliRunner().invoke, main, arguments, answer)

    async def shows(self) -> dict[str, Any]:
        result = await self.types("wallet", "show", "--json")
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    async def has(self, ether: int, lpt: int) -> None:
        await self.devnet.rpc("anvil_setBalance", self.address, hex(ether * ETHER))
        contracts = self.devnet.contracts
        mint = contracts.contract("LivepeerToken").functions.mint(self.address, lpt * ETHER)
        await contracts.send(contracts.owner, mint)

    async def sent(self) -> int:
        return await self.devnet.web3.eth.get_transaction_count(
            self.devnet.web3.to_checksum_address(self.address)
        )


@pytest.fixture
async def operator(devnet: Devnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = Operator(devnet, tmp_path)
    await made.settle_in()
    return made


async def test_an_operator_registers_earns_and_leaves(operator: Operator) -> None:
    wish = ("activate", "--stake", "100", "--reward-cut", "10", "--service-uri", URI)
    refused = await operator.types(*wish, "--yes")
    assert refused.exit_code == 1
    assert "not enough LPT: 100 LPT are to be staked, the account has 0 LPT" in refused.output

    await operator.has(ether=1, lpt=150)
    declined = await operator.types(*wish, answer="n\n")
    assert "nothing was sent" in declined.output
    assert "let the BondingManager take 100 LPT" in declined.output
    assert await operator.sent() == 0

    done = await operator.types(*wish, "--yes")
    assert done.exit_code == 0, done.output
    assert done.stdout.count("Done: transaction 0x") == 4
    assert "Nothing to do" in (await operator.types(*wish, "--yes")).output
    found = await operator.shows()
    assert found["bonded"] == str(100 * ETHER)
    assert (found["reward_cut"], found["ai_service_uri"]) == (100_000, URI)
    assert found["is_registered"] is True
    assert found["is_active"] is False

    await operator.devnet.next_round()
    assert (await operator.shows())["is_active"] is True
    await _rewards(operator)
    await _fees(operator)
    await _leaves(operator)


async def _rewards(operator: Operator) -> None:
    assert (await operator.types("reward", "--yes")).stdout.startswith("Done")
    assert "Nothing to do" in (await operator.types("reward", "--yes")).output


async def _fees(operator: Operator) -> None:
    sender = KeySigner((await operator.devnet.sender()).key)
    profile = await asyncio.to_thread(profile_of, str(operator.network))
    assert profile is not None
    async with open_chain(profile, profile.rpc, SystemClock()) as chain:
        head = await chain.head()
        ticket = Ticket(
            recipient=parse_address(operator.address),
            sender=sender.address,
            face_value=Wei(ETHER // 2),
            win_prob=CERTAIN,
            sender_nonce=1,
            recipient_rand_hash=rand_hash(1),
            creation=head.creation,
        )
        call = (await chain.calls()).redeem(SignedTicket(ticket, sender.sign(ticket.hash), 1))
    stranger = await operator.devnet.account()
    to = operator.devnet.web3.to_checksum_address("0x" + call.to.hex())
    transaction: TxParams = {"to": to, "data": HexBytes(call.data), "gas": 500_000}
    await operator.devnet.contracts.send(stranger, transaction)
    assert (await operator.shows())["fees"] == str(ETHER // 2)
    target = (await operator.devnet.account(0)).address
    words = ("wallet", "withdraw-fees", "--amount", "0.2", "--to", target, "--yes")
    assert (await operator.types(*words)).stdout.startswith("Done")
    assert await operator.devnet.web3.eth.get_balance(target) == ETHER // 5
    assert (await operator.types("wallet", "withdraw-fees", "--yes")).stdout.startswith("Done")
    assert (await operator.shows())["fees"] == "0"


async def _leaves(operator: Operator) -> None:
    before = (await operator.shows())["bonded"]
    assert (await operator.types("unbond", "40", "--yes")).stdout.startswith("Done")
    found = await operator.shows()
    assert int(found["bonded"]) == int(before) - 40 * ETHER
    early = await operator.types("wallet", "withdraw-stake", "0", "--yes")
    assert f"lock 0 opens in round {found['locks']['0']['withdraw_round']}" in early.output
    await operator.devnet.next_round(7)
    assert (await operator.types("wallet", "withdraw-stake", "0", "--yes")).stdout.startswith(
        "Done"
    )
    found = await operator.shows()
    assert found["lpt"] == str(90 * ETHER)
    assert found["locks"] == {}
    assert (await operator.types("bond", "5", "--yes")).stdout.count("Done") == 2


async def test_another_chain_no_chain_and_no_ether_are_refused(operator: Operator) -> None:
    await operator.has(ether=0, lpt=100)
    poor = await operator.types("bond", "1", "--yes")
    assert "not enough ether for gas" in poor.output

    await operator.settle_in(chain_id=CHAIN_ID + 1)
    wrong = await operator.types("wallet", "show")
    assert wrong.exit_code == 1
    assert str(CHAIN_ID) in wrong.output

    text = operator.config.read_text()
    operator.config.write_text(text.replace(str(operator.network), "offchain"))
    offchain = await operator.types("wallet", "show")
    assert "chain.network: this node is off-chain" in offchain.output


async def test_at_the_end_of_a_round_shares_are_refused_with_the_reason(
    operator: Operator,
) -> None:
    await operator.has(ether=1, lpt=10)
    assert (await operator.types("activate", "--stake", "10", "--yes")).stdout.count("Done") == 2
    rounds = operator.devnet.contracts.contract("RoundsManager").functions
    end = await rounds.currentRoundStartBlock().call() + await rounds.roundLength().call()
    await operator.devnet.mine(end - 1 - await operator.devnet.web3.eth.block_number)
    refused = await operator.types("activate", "--fee-share", "20", "--yes")
    assert refused.exit_code == 1
    assert "is locked; try again in the next one" in refused.output
    await operator.devnet.next_round()
    # Active by now: shares are changed after the round's reward.
    early = await operator.types("activate", "--fee-share", "20", "--yes")
    assert "limner-node reward" in early.output
    assert (await operator.types("reward", "--yes")).stdout.startswith("Done")
    assert (await operator.types("activate", "--fee-share", "20", "--yes")).stdout.startswith(
        "Done"
    )
    assert (await operator.shows())["fee_share"] == 200_000
