"""The client works alike on the chain that runs without anvil."""

from pathlib import Path

import pytest
from web3 import AsyncHTTPProvider, AsyncWeb3

from network.chain.contracts import open_chain
from network.chain.model import RevertedError
from network.chain.profiles import Profile
from network.chain.progress import Pace
from network.chain.settings import ChainSettings
from network.chain.transactions import open_transactions
from network.devnet.anvil import free_port
from network.devnet.deployment import Deployment, Rules, account_of
from network.devnet.in_process import running_in_process
from network.identity import KeySigner, parse_address
from network.runtime.clock import SystemClock
from network.units import Wei
from tests.devnet import CHAIN_ID, OWNER_KEY
from tests.network.chain.worlds import winner


async def test_a_sender_funds_and_a_ticket_is_redeemed_without_anvil(tmp_path: Path) -> None:
    port, clock = free_port(), SystemClock()
    owner = KeySigner(OWNER_KEY)
    async with running_in_process(port, CHAIN_ID, owner.address):
        url = f"http://127.0.0.1:{port}"
        web3 = AsyncWeb3(AsyncHTTPProvider(url))
        contracts = await Deployment.deploy(web3, account_of(OWNER_KEY), Rules(round_length=500))
        await web3.provider.disconnect()
        profile = Profile(
            name="in process",
            chain_id=CHAIN_ID,
            controller=parse_address(contracts.controller),
            ai_service_registry=parse_address(contracts.addresses["AIServiceRegistry"]),
        )
        async with (
            open_chain(profile, (url,), clock) as chain,
            open_transactions(
                owner,
                chain,
                tmp_path,
                clock,
                ChainSettings(),
                pace=Pace(poll_seconds=0.02),
                lock_folder=tmp_path,
            ) as transactions,
        ):
            calls = await chain.calls()
            await transactions.send(calls.fund_deposit(Wei(70)), "fund")
            assert (await chain.sender_info(owner.address)).deposit == 70
            with pytest.raises(RevertedError) as refused:
                await transactions.send(calls.cancel_unlock(), "cancel")
            assert refused.value.reason == "no unlock request in progress"
            free = await winner(chain, owner, owner.address, 0)
            receipt = await transactions.send(calls.redeem(free), "redeem")
            (payout,) = await chain.payouts(receipt)
            assert (payout.ticket_hash, payout.amount) == (free.ticket.hash, 0)
            assert await chain.is_used(free.ticket.hash)
            found = await chain.redeemed(owner.address, 0, receipt.block_number)
            assert found == (receipt.transaction_hash,)
