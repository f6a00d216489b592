"""Links as the settings want them, and what they tell the directory."""

import ssl
from asyncio import to_thread
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from gateway.config import GatewaySettings
from gateway.link.certificate import own_certificate, server_context
from gateway.link.door import PATH, Door, Doorkeeping, open_door
from gateway.link.switchboard import Joined, Switchboard
from gateway.orchestrators.client import KeylessAccount
from gateway.orchestrators.connecting import link_uri
from gateway.orchestrators.directory import Directory
from network.errors import ConfigError
from network.identity import Signer, parse_address
from network.link.news import News, read_news
from network.runtime.certificates import CertificateFiles, open_certificate
from network.runtime.clock import Clock

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_links(
    settings: GatewaySettings,
    account: Signer | KeylessAccount,
    switchboard: Switchboard,
    directory: Directory,
    clock: Clock,
) -> AsyncIterator[str]:
    """Take links, if the settings say where; yields the URL that nodes dial, "" without.

    Named nodes are in the directory whether they are linked or not: an operator wants to see who is
    missing. Raises ConfigError.
    """
    links = settings.links
    if not links.listen:
        yield ""
        return
    if isinstance(account, KeylessAccount):
        raise ConfigError(
            "links.listen",
            "the gateway must prove its account to nodes that link, and its key is at its signer "
            "(payments.signer_url); take links on a gateway that has its own key",
        )
    nodes = frozenset(parse_address(text) for text in links.nodes)
    if not nodes:
        _log.warning("links_of_nobody", advice="name the accounts of nodes in links.nodes")
    keeping = Doorkeeping(silence_seconds=links.silence_seconds)
    switchboard.expect(nodes)
    switchboard.subscribe(lambda one: directory.hurry(link_uri(one.account), one.uri))
    directory.list_from("links", [link_uri(node) for node in nodes])
    host, _, port = links.listen.rpartition(":")
    async with AsyncExitStack() as stack:
        tls, shown = await _tls(settings, clock, stack)
        door = Door(
            switchboard,
            signer=account,
            shown=shown,
            nodes=nodes,
            keeping=keeping,
            clock=clock,
            on_push=lambda joined, body: _pass_on(directory, joined, read_news(body)),
        )
        opened = open_door(
            door, switchboard, host=host.strip("[]"), port=int(port), tls=tls, keeping=keeping
        )
        try:
            bound = await stack.enter_async_context(opened)
        except OSError as error:
            raise ConfigError(
                "links.listen", f"cannot listen on {links.listen}: {error.strerror or error}"
            ) from error
        url = f"wss://{host}:{bound}{PATH}"
        _log.info("taking_links", url=url, nodes=len(nodes))
        yield url


def _pass_on(directory: Directory, joined: Joined, news: News) -> None:
    """Tell the directory of a node under the address that its jobs go to."""
    if joined.takes_jobs:
        directory.told(link_uri(joined.account), news)
        return
    # By account and not by its word: a node tells of nobody but itself.
    for offer in directory.snapshot():
        if offer.address == joined.account:
            directory.told(offer.uri, news)


async def _tls(
    settings: GatewaySettings, clock: Clock, stack: AsyncExitStack
) -> tuple[ssl.SSLContext, Callable[[ssl.SSLObject], bytes]]:
    """TLS as of now on, and what tells which certificate a connection was shown."""
    certificate, key = settings.tls.certificate, settings.tls.key
    if certificate is not None and key is not None:
        files = CertificateFiles(certificate, key)
        served = await stack.enter_async_context(open_certificate(files, ["http/1.1"], clock))
        return served.context, served.shown_on
    data_dir = settings.data_dir.expanduser()
    try:
        own = await to_thread(own_certificate, data_dir, clock.now())
        context, fingerprint = await to_thread(server_context, own, own)
    except (OSError, ValueError, IndexError) as error:
        raise ConfigError("links", f"cannot use {data_dir} for a certificate: {error}") from error
    return context, lambda _: fingerprint
