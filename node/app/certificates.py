"""Which certificate a node shows: its operator's, or one that it makes."""

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import structlog

from network.errors import ConfigError
from network.runtime.certificates import CertificateFiles, ServedCertificate, open_certificate
from network.runtime.supervisor import Supervisor
from node.api.certificate import ALPN_PROTOCOLS, keep_fresh, server_context
from node.app.core import Core
from node.config.settings import (
    NodeSettings,
    is_wildcard,
)

log = structlog.get_logger(__name__)


@asynccontextmanager
async def operators_certificate(core: Core, uri: str) -> AsyncIterator[ServedCertificate | None]:
    settings, tls = core.settings, core.settings.tls
    if tls.certificate is None or tls.key is None:
        yield None
        return
    if not settings.listen.startswith("https://"):
        raise ConfigError(
            "tls", f"nobody would see the certificate: {settings.listen} listens without TLS"
        )
    files = CertificateFiles(tls.certificate, tls.key)
    async with open_certificate(files, ALPN_PROTOCOLS, core.clock) as served:
        host = urlsplit(uri).hostname or ""
        if not served.current.covers(host):
            log.warning("the certificate does not name the service URI's host", host=host)
        yield served


async def own_certificate(supervisor: Supervisor, core: Core, uri: str) -> ssl.SSLContext:
    hosts = certificate_hosts(core.settings, uri)
    directory = core.settings.data_dir
    context = await server_context(directory, hosts, core.clock.now())
    supervisor.start("certificate", lambda: keep_fresh(context, directory, hosts, core.clock))
    return context


def certificate_hosts(settings: NodeSettings, uri: str) -> Sequence[str]:
    """Return the names and addresses by which a node of these settings may be called."""
    named = (urlsplit(uri).hostname or "", urlsplit(settings.listen).hostname or "")
    hosts = dict.fromkeys(host for host in named if host and not is_wildcard(host))
    return tuple(dict.fromkeys((*hosts, "localhost", "127.0.0.1", "::1")))
