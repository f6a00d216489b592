"""`limner-gateway signer` in a process of its own, on a chain: its tickets are worth their money."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fractions import Fraction
from pathlib import Path

import psutil
import pytest
from aiohttp import ClientSession
from eth_account.signers.local import LocalAccount

from gateway.payments.payer import CannotPayError, Quote, UnpayableError
from gateway.payments.remote_signer import RemoteSigner, RemoteSignerError
from network.capabilities import job_capabilities
from network.devnet.deployment import ETHER
from network.payments.signing import TicketSeries
from network.payments.tickets import CERTAIN, CreationRound, TicketParams, rand_hash
from network.units import Address, ModelId, Wei
from network.wire.codec import AuthToken, OrchestratorInfo
from network.wire.tickets import encode_ticket_params
from scripts.local_network.network import BIN
from scripts.local_network.processes import Program
from tests.devnet import Devnet
from tests.gateway.signer.operator import PASSPHRASE, Operator, operator_on

RAND = 4711
MODEL = ModelId("m")
NEED = job_capabilities(MODEL, "0.9.1")


@asynccontextmanager
async def serving(operator: Operator, *flags: str) -> AsyncIterator[Program]:
    command = [str(BIN / "limner-gateway"), "signer", *operator.options, "--json-ready"]
    command += ["--listen", "127.0.0.1:0", "--log-level", "debug", *flags]
    program = await asyncio.to_thread(
        lambda: Program.start(
            command,
            log=operator.folder / "log",
            environment=operator.environment,
        )
    )
    try:
        yield program
    finally:
        await asyncio.to_thread(program.stop)


async def quote_of(
    devnet: Devnet, orchestrator: LocalAccount
) -> tuple[OrchestratorInfo, TicketParams]:
    """What an orchestrator on this chain asks; nine tickets in ten win."""
    rounds = devnet.contracts.contract("RoundsManager").functions
    number = await rounds.lastInitializedRound().call()
    params = TicketParams(
        recipient=Address(bytes.fromhex(orchestrator.address[2:])),
        face_value=Wei(10**12),
        win_prob=CERTAIN // 10 * 9,
        recipient_rand_hash=rand_hash(RAND),
        seed=b"\x01" * 32,
        expiration_block=await rounds.blockNum().call() + 40,
        creation=CreationRound(number, bytes(await rounds.blockHashForRound(number).call())),
    )
    info = OrchestratorInfo(
        transcoder="https://127.0.0.1:8936",
        address=params.recipient,
        price=Fraction(10**6),
        prices=(),
        capabilities=NEED,
        auth_token=AuthToken(b"t" * 32, "01234567", 4_000_000_000),
        ticket_params=encode_ticket_params(params),
    )
    return info, params


@pytest.fixture
async def orchestrator(devnet: Devnet) -> LocalAccount:
    made = await devnet.orchestrator()
    await devnet.next_round()
    return made


async def test_a_ticket_of_the_signer_is_redeemed_on_chain(
    devnet: Devnet, orchestrator: LocalAccount, tmp_path: Path
) -> None:
    sender = await devnet.sender()
    operator = await operator_on(devnet, tmp_path, sender)
    async with serving(operator) as program, ClientSession() as client:
        remote = await RemoteSigner.open(client, program.ready.url, "0.9.1")
        info, params = await quote_of(devnet, orchestrator)
        signed = await remote.make(Quote.of(MODEL, info), 10)
        series = TicketSeries(params, remote.address)
        winner = next(
            ticket for ticket in signed.tickets if series.is_winner(ticket.signature, RAND)
        )
        fields = (
            orchestrator.address, sender.address, params.face_value, params.win_prob,
            winner.nonce, params.recipient_rand_hash, params.creation.aux_data,
        )  # fmt: skip
        broker = devnet.contracts.contract("TicketBroker").functions
        redeem = broker.redeemWinningTicket(fields, winner.signature, RAND)
        await devnet.contracts.send(orchestrator, redeem)
        funds, _ = await broker.getSenderInfo(sender.address).call()
        assert funds[0] == ETHER - params.face_value

        for one in (psutil.Process(program.pid), *psutil.Process(program.pid).children()):
            assert PASSPHRASE not in " ".join(one.cmdline())
    log = (tmp_path / "log").read_text()
    assert "tickets_signed" in log
    assert PASSPHRASE not in log
    assert bytes(sender.key).hex() not in log
    assert program.ready.address == sender.address


async def test_the_chain_decides_who_is_paid_and_whether(
    devnet: Devnet, orchestrator: LocalAccount, tmp_path: Path
) -> None:
    """An inactive recipient, an unlocking sender, a paused broker: each refused in words."""
    operator = await operator_on(devnet, tmp_path, await devnet.sender())
    async with serving(operator) as program, ClientSession() as client:
        remote = await RemoteSigner.open(client, program.ready.url, "0.9.1")
        info, _ = await quote_of(devnet, await devnet.account())
        with pytest.raises(RemoteSignerError, match="not an active orchestrator"):
            await remote.make(Quote.of(MODEL, info), 1)
        info, _ = await quote_of(devnet, orchestrator)
        await remote.make(Quote.of(MODEL, info), 1)

        broker = devnet.contracts.contract("TicketBroker").functions
        await devnet.contracts.send(operator.account, broker.unlock())
        await devnet.next_round()
        info, _ = await quote_of(devnet, orchestrator)
        await refused_with(remote, info, "set to unlock soon")
        controller = devnet.contracts.contract("Controller").functions
        await devnet.contracts.send(devnet.contracts.owner, controller.pause())
        await refused_with(remote, info, "system is paused")


async def refused_with(remote: RemoteSigner, info: OrchestratorInfo, reason: str) -> None:
    """The signer looks at the chain from time to time: in the end it refuses for this reason."""
    async with asyncio.timeout(20):
        while True:
            try:
                await remote.make(Quote.of(MODEL, info), 1)
            except (UnpayableError, CannotPayError) as error:
                if reason in str(error):
                    return
            await asyncio.sleep(0.05)
