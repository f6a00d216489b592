"""Real handshakes before and after the files are replaced."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from typing_extensions import override

from network.errors import ConfigError
from network.runtime import certificates
from network.runtime.certificates import (
    CertificateError,
    CertificateFiles,
    ServedCertificate,
    load,
    open_certificate,
)
from network.runtime.clock import SystemClock
from tests.network.runtime.pems import DAY, der, write_pair

PROTOCOLS = ["http/1.1", "h2"]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Clock(SystemClock):
    """The system's, moved on by as many seconds as a test likes."""

    ahead = 0.0

    @override
    def now(self) -> float:
        return super().now() + self.ahead


@asynccontextmanager
async def listening(files: CertificateFiles, clock: Clock) -> AsyncIterator["Listening"]:
    """A server that says back what it hears."""
    served = await ServedCertificate.open(files, PROTOCOLS, clock)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=served.context)
    async with server:
        yield Listening(served, server.sockets[0].getsockname()[1])


class Listening:
    def __init__(self, served: ServedCertificate, port: int) -> None:
        self.served = served
        self.port = port

    async def connect(self, alpn: str = "http/1.1", name: str | None = None) -> Streams:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols([alpn])
        return await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context, server_hostname=name or ""
        )

    async def shown(self, alpn: str = "http/1.1", name: str | None = None) -> bytes:
        """The certificate of a new connection; ALPN has to work with each."""
        _, writer = await self.connect(alpn, name)
        tls = writer.get_extra_info("ssl_object")
        assert tls.selected_alpn_protocol() == alpn
        found: bytes = tls.getpeercert(binary_form=True)
        writer.close()
        await writer.wait_closed()
        return found


def files_in(folder: Path, clock: Clock, days: float = 90) -> CertificateFiles:
    return CertificateFiles(*write_pair(folder, clock.now(), days=days))


async def test_new_files_are_taken_and_open_connections_stay(tmp_path: Path) -> None:
    clock = Clock()
    files = files_in(tmp_path, clock)
    first = der(files.certificate)
    async with listening(files, clock) as server:
        reader, writer = await server.connect()
        assert await server.shown() == first
        files_in(tmp_path, clock)
        second = der(files.certificate)
        assert await server.shown() == first
        await server.served.check()
        for alpn in PROTOCOLS:
            for name in (None, "node.example.org"):
                assert await server.shown(alpn, name) == second
        writer.write(b"still here\n")
        assert await reader.readline() == b"still here\n"
        writer.close()
        # And on, and on.
        files_in(tmp_path, clock)
        await server.served.check()
        assert await server.shown() == der(files.certificate)


async def test_links_that_lead_elsewhere_are_followed(tmp_path: Path) -> None:
    """As certbot does it (links to files), and Kubernetes (a link to a folder)."""
    clock = Clock()
    for version in ("1", "2", "3"):
        files_in(tmp_path / version, clock)
    live = tmp_path / "live"
    live.mkdir()
    files = CertificateFiles(live / "fullchain.pem", live / "privkey.pem")

    def point(folder: Path) -> None:
        for path in (files.certificate, files.key):
            draft = path.with_suffix(".new")
            draft.symlink_to(folder / path.name)
            draft.replace(path)

    point(tmp_path / "1")
    async with listening(files, clock) as server:
        point(tmp_path / "2")
        await server.served.check()
        assert await server.shown() == der(tmp_path / "2" / "fullchain.pem")
        data = tmp_path / "data"
        data.symlink_to(tmp_path / "2")
        point(data)
        await server.served.check()
        data.unlink()
        data.symlink_to(tmp_path / "3")
        await server.served.check()
        assert await server.shown() == der(tmp_path / "3" / "fullchain.pem")


async def test_a_key_of_another_certificate_is_left_alone_until_its_own_comes(
    tmp_path: Path,
) -> None:
    clock = Clock()
    files = files_in(tmp_path, clock)
    first = der(files.certificate)
    newer = files_in(tmp_path / "newer", clock)
    async with listening(files, clock) as server:
        # In the middle of a renewal: one of two files is there.
        files.certificate.write_bytes(newer.certificate.read_bytes())
        with capture_logs() as logs:
            await server.served.check()
            await server.served.check()
        assert await server.shown() == first
        (line,) = logs
        assert line["log_level"] == "warning"
        assert line["why"] == f"{files.key} is not the key of {files.certificate}"
        assert server.served.status()["problem"] == line["why"]
        files.key.write_bytes(newer.key.read_bytes())
        await server.served.check()
        assert await server.shown() == der(newer.certificate)
        assert server.served.status()["problem"] == ""


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("gone", "cannot read .*fullchain.pem: No such file"),
        ("key gone", "cannot read .*privkey.pem: No such file"),
        ("folder", "cannot read .*fullchain.pem: Is a directory"),
        ("text", "fullchain.pem holds no certificate in PEM"),
        ("key text", "privkey.pem holds no private key in PEM"),
        ("locked", "privkey.pem is encrypted"),
        ("endless", "fullchain.pem is larger than"),
        ("over", "fullchain.pem has expired"),
        ("early", "fullchain.pem is not valid yet"),
    ],
)
async def test_files_that_do_not_do_change_nothing(tmp_path: Path, broken: str, why: str) -> None:
    clock = Clock()
    files = files_in(tmp_path, clock)
    first = der(files.certificate)
    async with listening(files, clock) as server:
        match broken:
            case "gone":
                files.certificate.unlink()
            case "key gone":
                files.key.unlink()
            case "folder":
                files.certificate.unlink()
                files.certificate.mkdir()
            case "text":
                files.certificate.write_text("-----BEGIN CERTIFICATE-----\n")
            case "key text":
                files.key.write_text("x")
            case "locked":
                write_pair(tmp_path, clock.now(), passphrase=b"nobody knows")
            case "endless":
                files.certificate.write_bytes(b"x" * (2**20 + 1))
            case "over":
                files_in(tmp_path, clock, days=-1)
            case _:
                write_pair(tmp_path, clock.now() + 366 * DAY)
        with capture_logs() as logs:
            await server.served.check()
        assert await server.shown() == first
        (line,) = logs
        assert line["event"] == "kept the old certificate"
        assert re.search(why, line["why"])
    if broken in {"over", "early"}:
        # What is only too old or too young can be begun with, for want of anything better.
        assert (await asyncio.to_thread(load, files, PROTOCOLS)).names
    else:
        with pytest.raises(CertificateError, match=why):
            await asyncio.to_thread(load, files, PROTOCOLS)


async def test_its_end_is_told_a_fortnight_before_and_once_a_day(tmp_path: Path) -> None:
    clock = Clock()
    files = files_in(tmp_path, clock, days=30)
    async with listening(files, clock) as server:
        told: list[tuple[str, int]] = []
        for day in (1, 15, 17, 17.5, 18.1, 31):
            clock.ahead = day * DAY
            with capture_logs() as logs:
                await server.served.check()
            told += [(line["log_level"], line["days_left"]) for line in logs]
        assert told == [("warning", 12), ("warning", 11), ("error", -2)]
        assert server.served.status()["days_left"] == -2
        # It is served all the same: most of those who call do not look.
        assert await server.shown() == der(files.certificate)


def test_names_are_compared_as_clients_do(tmp_path: Path) -> None:
    clock = Clock()
    one = load(files_in(tmp_path, clock), PROTOCOLS)
    assert one.covers("NODE.example.org")
    assert one.covers("127.0.0.1")
    assert not one.covers("other.example.org")
    pair = write_pair(tmp_path, clock.now(), name="*.example.org")
    wild = load(CertificateFiles(*pair), PROTOCOLS)
    assert wild.covers("node.example.org")
    assert not wild.covers("a.node.example.org")
    assert not wild.covers("example.org")


async def test_the_watch_takes_new_files_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "CHECK_SECONDS", 0.01)
    clock = Clock()
    files = files_in(tmp_path, clock)
    async with open_certificate(files, PROTOCOLS, clock) as served:
        before = served.current
        files_in(tmp_path, clock)
        async with asyncio.timeout(30):
            while served.current is before:  # noqa: ASYNC110  a file, and not an event
                await asyncio.sleep(0.01)
    files.key.unlink()
    with pytest.raises(ConfigError, match="tls: cannot read"):
        async with open_certificate(files, PROTOCOLS, clock):
            pass
