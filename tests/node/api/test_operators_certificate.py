import asyncio
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

from network.errors import ConfigError
from network.runtime import certificates
from network.runtime.clock import SystemClock
from node.app import RunningNode
from tests.network.runtime.pems import der, write_pair
from tests.node.nodes import Buyer, eventually, running_node

LISTEN = "https://127.0.0.1:0"


async def shown(node: RunningNode) -> bytes:
    url = urlsplit(node.url)
    address = url.hostname or "", url.port or 0
    return ssl.PEM_cert_to_DER_cert(await asyncio.to_thread(ssl.get_server_certificate, address))


async def test_the_operators_certificate_is_served_and_renewed_without_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "CHECK_SECONDS", 0.02)
    now = SystemClock().now()
    chain, key = write_pair(tmp_path / "live", now)
    tls = {"certificate": chain, "key": key}
    async with running_node(tmp_path, listen=LISTEN, tls=tls) as node, Buyer(node) as buyer:
        assert await shown(node) == der(chain)
        # HTTP/1.1 and gRPC, each by its ALPN.
        assert (await buyer.ask()).status == 200
        write_pair(tmp_path / "live", now)

        async def is_renewed() -> bool:
            return await shown(node) == der(chain)

        await eventually(is_renewed, seconds=30)
        assert (await buyer.terms()).transcoder == node.url
        assert (await buyer.ask()).status == 200
        status = (await buyer.get("/status", admin=True)).json["certificate"]
        assert (status["file"], status["days_left"], status["problem"]) == (str(chain), 89, "")
        # The node's own was not made.
        assert not (tmp_path / "data" / "tls.pem").exists()


async def test_a_name_that_nobody_calls_is_told(tmp_path: Path) -> None:
    chain, key = write_pair(tmp_path / "live", SystemClock().now())
    settings = {"tls": {"certificate": chain, "key": key}, "open": True}
    with capture_logs() as logs:
        async with running_node(
            tmp_path, None, listen=LISTEN, service_uri="https://other.example.org", **settings
        ):
            pass
    (line,) = [line for line in logs if "does not name" in line["event"]]
    assert line["host"] == "other.example.org"


async def test_what_cannot_be_served_ends_the_start(tmp_path: Path) -> None:
    chain, key = write_pair(tmp_path / "live", SystemClock().now())
    with pytest.raises(ConfigError, match="tls: nobody would see the certificate"):
        async with running_node(tmp_path, tls={"certificate": chain, "key": key}):
            pass
    key.write_text("no key")
    with pytest.raises(ConfigError, match=r"tls: .*privkey.pem holds no private key"):
        async with running_node(tmp_path, listen=LISTEN, tls={"certificate": chain, "key": key}):
            pass
    with pytest.raises(ValueError, match="certificate and key go together"):
        async with running_node(tmp_path, tls={"certificate": chain}):
            pass
