"""Everything that the node's doctor looks at, all at the same time."""

import asyncio
import random
import secrets
from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from network.chain.contracts import LivepeerChain
from network.chain.model import ChainError
from network.chain.profiles import Profile, endpoints_of, profile_of
from network.doctor.chain import look_at_chain, open_contracts
from network.doctor.keys import Account, judge_folder, look_at_account
from network.doctor.machine import judge_certificate_file, judge_room, room_at
from network.doctor.running import Check, Section, examine
from network.errors import ConfigError
from network.findings import Finding, fail, ok, skip
from network.identity import KEY_BYTES, KeySigner, parse_address
from network.prices import NoRateError
from network.reachability.stranger import look
from network.runtime.clock import Clock
from node.app import VERSION, expectation
from node.config.catalogue import catalogue, models_dir
from node.config.settings import NodeSettings, check_access, service_uri
from node.discovery.hardware import read_nvml
from node.discovery.identity import passphrase_sources
from node.doctor.hardware import AskTorch, ask_torch, look_at_hardware
from node.doctor.models import Inspect, host_memory, judge_safety, look_at_models
from node.doctor.prices import ask_market, judge_prices, rate_now, sample
from node.doctor.registration import judge_membership, read_membership
from node.doctor.running import Standing, look_at_node, look_at_ports
from node.payments.rates import price_list

_FIRST_SECONDS: Final = 4.0
_JOURNAL_BYTES: Final = 2**30
_NO_CHAIN: Final = "off-chain: nothing is paid by ticket"
_CERTIFICATE_FILE: Final = "tls.pem"


@dataclass(frozen=True, slots=True)
class Patient:
    """What the checks stand on: the settings, and what was found first."""

    settings: NodeSettings
    clock: Clock
    profile: Profile | None
    account: Account
    standing: Standing
    inspect: Inspect
    randomness: random.Random

    @property
    def signer(self) -> KeySigner | None:
        """The node's account, where it opens."""
        return self.account.signer


async def examine_node(
    settings: NodeSettings,
    *,
    clock: Clock,
    inspect: Inspect,
    randomness: random.Random,
    torch: AskTorch = ask_torch,
) -> tuple[Section, ...]:
    """Look at everything. Takes about fifteen seconds at most; changes nothing, raises nothing."""
    try:
        profile = await asyncio.to_thread(profile_of, settings.chain.network)
        check_access(settings)
    except ConfigError as error:
        wrong = fail("settings", str(error), "correct it: the node does not start")
        return (Section("settings", (wrong,)),)
    account, standing = await asyncio.gather(_account(settings), _standing(settings))
    patient = Patient(settings, clock, profile, account, standing, inspect, randomness)
    found = await examine(
        (
            Check("hardware", lambda: look_at_hardware(settings.engine.device, torch), 11.0),
            Check("models", lambda: _models(patient)),
            Check("disk", lambda: _disk(patient)),
            Check("ports", lambda: look_at_ports(settings, standing)),
            Check("chain", lambda: _chain(patient)),
            Check("registration", lambda: _on_chain("registration", _registration(patient))),
            Check("prices", lambda: _on_chain("price", _prices(patient))),
            Check("what a stranger sees", lambda: _reachability(patient), 11.0),
        )
    )
    return (
        Section("settings", (ok("settings", "valid"),)),
        Section("account", account.findings),
        *found,
    )


async def _account(settings: NodeSettings) -> Account:
    keystore = settings.keystore
    sources = passphrase_sources(settings.data_dir, keystore.passphrase, keystore.passphrase_file)
    try:
        async with asyncio.timeout(_FIRST_SECONDS):
            return await look_at_account(sources)
    except (TimeoutError, OSError) as error:
        why = str(error) or f"takes more than {_FIRST_SECONDS:g} s"
        return Account((fail("keystore", f"cannot be opened: {why}", "see data_dir"),))


async def _standing(settings: NodeSettings) -> Standing:
    try:
        async with asyncio.timeout(_FIRST_SECONDS):
            return await look_at_node(settings)
    except TimeoutError:
        return Standing(is_running=False)


async def _models(patient: Patient) -> tuple[Finding, ...]:
    settings = patient.settings
    readings = () if settings.engine.device == "cpu" else await asyncio.to_thread(read_nvml)
    memory = max((one.gpu.memory_total for one in readings), default=0)
    where = "GPU memory" if memory else "the machine's memory"
    memory = settings.engine.memory_budget or memory or host_memory()
    found = await asyncio.to_thread(look_at_models, settings, patient.inspect, memory, where)
    return (*found, await asyncio.to_thread(judge_safety, settings))


async def _disk(patient: Patient) -> tuple[Finding, ...]:
    return await asyncio.to_thread(_look_at_disk, patient)


def _look_at_disk(patient: Patient) -> tuple[Finding, ...]:
    settings = patient.settings
    findings = [
        judge_folder(settings.data_dir),
        judge_room("room for the journal", room_at(settings.data_dir), _JOURNAL_BYTES),
        judge_room("room for models", room_at(models_dir(settings)), 0),
    ]
    certificate = settings.tls.certificate or settings.data_dir / _CERTIFICATE_FILE
    if settings.listen.startswith("https://") and certificate.exists():
        findings.append(judge_certificate_file(certificate, patient.clock.now()))
    return tuple(findings)


async def _chain(patient: Patient) -> tuple[Finding, ...]:
    profile = patient.profile
    if profile is None:
        return (skip("network", _NO_CHAIN), skip("clock", "off-chain there is no server to ask"))
    return await look_at_chain(
        profile, endpoints_of(patient.settings.chain, profile), patient.clock
    )


async def _on_chain(what: str, look_at_it: Awaitable[tuple[Finding, ...]]) -> tuple[Finding, ...]:
    try:
        return await look_at_it
    except ChainError as error:
        # The section on the chain says what is wrong with it, and what to do.
        return (skip(what, f"the chain cannot be read: {error}"),)


async def _registration(patient: Patient) -> tuple[Finding, ...]:
    profile, signer, settings = patient.profile, patient.signer, patient.settings
    if profile is None:
        return (skip("registration", _NO_CHAIN),)
    if signer is None:
        return (skip("registration", "the account is not known"),)
    async with _opened(patient, profile) as chain:
        head = await chain.head()
        found = await read_membership(chain, signer.address)
    return judge_membership(found, head, settings.service_uri, settings.payments.redeem_gas)


async def _prices(patient: Patient) -> tuple[Finding, ...]:
    profile, signer, settings = patient.profile, patient.signer, patient.settings
    if profile is None:
        return (skip("price", _NO_CHAIN),)
    if signer is None:
        return (skip("price", "the account is not known, in whose name others would be asked"),)
    models = await asyncio.to_thread(catalogue, settings)
    async with _opened(patient, profile) as chain:
        rates = await rate_now(settings, models, chain.rpc, patient.clock)
        pool = await chain.orchestrators()
    listed = price_list(settings, models, rates)
    try:
        own = {
            model.model_id: listed.price(model.model_id, signer.address) for model in models.models
        }
    except NoRateError as error:
        advice = "until it is known nothing is sold: see price_feed, or set usd_per_eth"
        return (fail("price", rates.problem or str(error), advice),)
    uris = sample(pool, signer.address, patient.randomness)
    return judge_prices(own, await ask_market(uris, signer, VERSION, patient.clock))


async def _reachability(patient: Patient) -> Sequence[Finding]:
    standing, settings = patient.standing, patient.settings
    if not standing.is_running:
        where = service_uri(settings, urlsplit(settings.listen).port or 0)
        return (
            skip(
                "service URI",
                f"{where} was not tried: no node runs on {settings.data_dir}",
                "start the node, and run the doctor beside it",
            ),
        )
    address = patient.signer.address if patient.signer is not None else None
    if address is None and standing.address:
        address = parse_address(standing.address)
    uri = standing.service_uri or settings.service_uri
    if not uri:
        return (skip("service URI", "the running node does not tell it"),)
    return await look(
        uri,
        expectation(address, settings),
        asker=KeySigner(secrets.token_bytes(KEY_BYTES)),
        version=VERSION,
        clock=patient.clock,
    )


def _opened(patient: Patient, profile: Profile) -> AbstractAsyncContextManager[LivepeerChain]:
    return open_contracts(profile, endpoints_of(patient.settings.chain, profile), patient.clock)
