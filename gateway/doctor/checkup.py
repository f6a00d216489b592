"""Everything that the gateway's doctor looks at, all at the same time."""

import asyncio
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from gateway.app import probe_orchestrators
from gateway.config import GatewaySettings
from gateway.doctor.access import look_at_access
from gateway.doctor.books import look_at_books, look_at_disk
from gateway.doctor.funds import Wishes, judge_funds
from gateway.doctor.orchestrators import judge_orchestrators
from gateway.doctor.serving import (
    Standing,
    look_at_ports,
    look_at_public_url,
    look_at_tls,
    look_for_gateway,
)
from gateway.home import open_payer
from gateway.payments.rates import open_rates
from network.chain.model import ChainError
from network.chain.profiles import Profile, endpoints_of, profile_of
from network.doctor.chain import look_at_chain, open_contracts
from network.doctor.keys import judge_folder, look_at_account
from network.doctor.running import Check, Section, examine
from network.errors import ConfigError, LimnerError
from network.findings import Finding, fail, ok, skip
from network.identity import checksum
from network.prices import NoRateError, in_wei
from network.runtime.clock import Clock
from network.units import Address

#: Of the installed distribution; read from disk, and therefore once, at import.
_VERSION: Final = version("limner")
_FIRST_SECONDS: Final = 5.0
_NO_CHAIN: Final = "off-chain: nothing is paid by ticket"


@dataclass(frozen=True, slots=True)
class _Patient:
    """What the checks stand on. `account` is None where it is not known."""

    settings: GatewaySettings
    clock: Clock
    profile: Profile | None
    account: Address | None
    standing: Standing | None


async def examine_gateway(settings: GatewaySettings, clock: Clock) -> tuple[Section, ...]:
    """Look at everything. Takes about fifteen seconds at most; changes nothing, raises nothing."""
    try:
        profile = await asyncio.to_thread(profile_of, settings.chain.network)
    except ConfigError as error:
        wrong = fail("settings", str(error), "correct it: the gateway does not start")
        return (Section("settings", (wrong,)),)
    (findings, account), standing = await asyncio.gather(
        _account(settings), look_for_gateway(settings)
    )
    patient = _Patient(settings, clock, profile, account, standing)
    found = await examine(
        (
            Check("database", lambda: look_at_books(settings, clock)),
            Check("disk", lambda: asyncio.to_thread(_look_at_disk, settings)),
            Check("ports", lambda: _ports(patient)),
            Check("TLS", lambda: asyncio.to_thread(look_at_tls, settings, clock.now())),
            Check("public URL", lambda: look_at_public_url(settings, standing)),
            Check("access", lambda: look_at_access(settings)),
            Check("chain", lambda: _chain(patient)),
            Check("deposit and reserve", lambda: _funds(patient)),
            Check("orchestrators", lambda: _orchestrators(patient)),
        )
    )
    return (
        Section("settings", (ok("settings", "valid"),)),
        Section("account", findings),
        *found,
    )


async def _account(settings: GatewaySettings) -> tuple[tuple[Finding, ...], Address | None]:
    try:
        async with asyncio.timeout(_FIRST_SECONDS):
            if settings.payments.signer_url:
                return await _remote(settings)
            account = await look_at_account(settings.passphrase_sources)
    except (TimeoutError, OSError) as error:
        why = str(error) or f"takes more than {_FIRST_SECONDS:g} s"
        return (fail("keystore", f"cannot be opened: {why}", "see data_dir"),), None
    address = None if account.signer is None else account.signer.address
    return account.findings, address


async def _remote(settings: GatewaySettings) -> tuple[tuple[Finding, ...], Address | None]:
    what = "signer"
    try:
        async with open_payer(settings, _VERSION) as payer:
            address = payer.maker.address
    except LimnerError as error:
        advice = "see that the signer runs, and that payments.signer_token is the one it takes"
        return (fail(what, str(error), advice),), None
    return (ok(what, f"signs for {checksum(address)}"),), address


def _look_at_disk(settings: GatewaySettings) -> tuple[Finding, ...]:
    return (judge_folder(settings.data_dir.expanduser()), *look_at_disk(settings))


async def _ports(patient: _Patient) -> tuple[Finding, ...]:
    own = "" if patient.account is None else checksum(patient.account)
    return await look_at_ports(patient.settings, patient.standing, own)


async def _chain(patient: _Patient) -> tuple[Finding, ...]:
    profile = patient.profile
    if profile is None:
        return (skip("network", _NO_CHAIN), skip("clock", "off-chain there is no server to ask"))
    urls = endpoints_of(patient.settings.chain, profile)
    return await look_at_chain(profile, urls, patient.clock)


async def _funds(patient: _Patient) -> tuple[Finding, ...]:
    profile, account = patient.profile, patient.account
    if profile is None:
        return (skip("funds", _NO_CHAIN),)
    if account is None:
        return (skip("funds", "the account is not known"),)
    urls = endpoints_of(patient.settings.chain, profile)
    try:
        async with open_contracts(profile, urls, patient.clock) as chain:
            head, info = await asyncio.gather(chain.head(), chain.sender_info(account))
    except ChainError as error:
        # The section on the chain says what is wrong with it, and what to do.
        return (skip("funds", f"the chain cannot be read: {error}"),)
    payments = patient.settings.payments
    wishes = Wishes(
        max_ticket_value=payments.max_ticket_value,
        deposit_multiplier=payments.deposit_multiplier,
        warn_deposit=payments.warn_deposit,
        warn_reserve=payments.warn_reserve,
    )
    return judge_funds(info, head, wishes)


async def _orchestrators(patient: _Patient) -> tuple[Finding, ...]:
    settings = patient.settings
    if patient.account is None:
        detail = "not asked: the gateway has no account yet, or it does not open"
        return (skip("orchestrators", detail, "start the gateway once"),)
    cap = settings.routing.max_price
    async with open_rates(settings, patient.clock) as rates:
        found = await probe_orchestrators(settings)
        try:
            most = None if cap is None else in_wei(cap, rates.current)
        except NoRateError as error:
            advice = "until it is known nothing is bought: see price_feed, or set usd_per_eth"
            wrong = fail("routing.max_price", rates.problem or str(error), advice)
            return (*judge_orchestrators(found, settings.default_model, None), wrong)
    return judge_orchestrators(found, settings.default_model, most)
