"""The operator's own port, and the node's look at itself."""

import asyncio
import socket
from contextlib import AsyncExitStack

from aiohttp import web

from network.chain.profiles import ARBITRUM_ONE
from network.reachability.judgement import Expectation
from network.runtime.certificates import ServedCertificate
from network.runtime.console import read_page
from network.units import Address, ModelId
from node.api.admin import AdminService, admin_application
from node.api.recent import PAGE
from node.api.runners import RunnerService
from node.app.core import VERSION, Core, health_of
from node.app.public import bound
from node.config.settings import (
    NodeSettings,
)
from node.discovery.reachability import SelfCheck, stranger_look
from node.link.opening import Links


def self_check(core: Core, uri: str) -> SelfCheck | None:
    settings = core.settings
    if not settings.reachability.check:
        return None
    model_id = core.models.models[0].model_id
    expected = expectation(core.identity.signer.address, settings, model_id)
    look = stranger_look(uri, expected, VERSION, core.clock)
    return SelfCheck(uri, look, core.clock)


async def admin_socket(stack: AsyncExitStack, settings: NodeSettings) -> socket.socket:
    """The operator's port, known before anybody can name it as an app's."""
    host, _, port = settings.admin_listen.rpartition(":")
    sock = await bound("admin_listen", host.strip("[]"), int(port))
    stack.callback(sock.close)
    return sock


async def open_admin(
    stack: AsyncExitStack,
    core: Core,
    uri: str,
    check: SelfCheck | None,
    *,
    sock: socket.socket,
    runners: RunnerService | None,
    served: ServedCertificate | None,
    links: Links,
) -> str:
    service = AdminService(
        address=core.identity.signer.address,
        service_uri=uri,
        version=VERSION,
        engine=core.engine,
        runner=core.runner,
        journal=core.journal,
        prices=core.prices,
        health=health_of(core),
        metrics=core.metrics,
        clock=core.clock,
        recent=core.recent,
        page=await asyncio.to_thread(read_page, PAGE),
        earning=core.earning,
        reachability=check,
        runners=None if runners is None else runners.status,
        certificate=None if served is None else served.status,
        links=links.states,
    )
    runner = web.AppRunner(
        admin_application(service), handle_signals=False, access_log=None, shutdown_timeout=0
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, sock).start()
    host = core.settings.admin_listen.rpartition(":")[0]
    return f"http://{host}:{sock.getsockname()[1]}"


def expectation(
    account: Address | None, settings: NodeSettings, model_id: ModelId | None = None
) -> Expectation:
    """Return what a stranger is to find at the service URI of a node of these settings."""
    return Expectation(
        account=account,
        is_public=settings.chain.network == ARBITRUM_ONE.name,
        is_restricted=bool(settings.allowed_gateways),
        model_id=model_id,
    )
