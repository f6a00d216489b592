"""Disks, ports and certificate files: real ones, and the verdicts over all others."""

import asyncio
import os
import socket
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from network.doctor.machine import (
    Port,
    Room,
    judge_certificate_file,
    judge_port,
    judge_room,
    look_at_port,
    room_at,
)
from network.findings import Verdict
from network.runtime.clock import SystemClock
from tests.network.reachability.certificates import HOUR, write_certificate

GIB = 2**30
YEAR = timedelta(days=365)


@pytest.mark.parametrize(
    ("free", "wanted", "verdict"),
    [
        (50 * GIB, GIB, Verdict.OK),
        (GIB // 2, GIB, Verdict.WARN),
        (10 * 2**20, 0, Verdict.FAIL),
        (0, GIB, Verdict.FAIL),
    ],
)
def test_a_full_disk_is_noticed_before_it_is_full(
    free: int, wanted: int, verdict: Verdict
) -> None:
    found = judge_room("journal", Room(Path("/data"), 100 * GIB, free), wanted)
    assert found.verdict is verdict
    assert "/data" in found.detail


def test_the_room_is_that_of_the_folder_that_will_be_made(tmp_path: Path) -> None:
    room = room_at(tmp_path / "not" / "yet")
    assert 0 < room.free <= room.total
    assert room.total == room_at(tmp_path).total


async def test_a_free_port_is_free_and_left_so() -> None:
    for _ in range(2):
        port = await look_at_port("listen", "127.0.0.1", 0)
        assert judge_port(port).verdict is Verdict.OK


async def test_a_taken_port_names_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        port = await look_at_port("listen", "127.0.0.1", number)
    assert port.holder.endswith(f"(pid {os.getpid()})")
    found = judge_port(port)
    assert found.verdict is Verdict.FAIL
    assert f"(pid {os.getpid()})" in found.detail
    assert str(number) in found.detail


async def test_an_address_that_is_not_this_machines_is_no_port_of_ours() -> None:
    found = judge_port(await look_at_port("listen", "192.0.2.1", 8936))
    assert found.verdict is Verdict.FAIL
    assert "192.0.2.1" in found.detail


def test_a_port_of_go_livepeer_is_called_by_its_name() -> None:
    taken = Port("admin_listen", "127.0.0.1 port 7935", "it is taken", "livepeer (pid 12)")
    found = judge_port(taken)
    assert found.verdict is Verdict.FAIL
    assert "a go-livepeer process" in found.detail


PYTHON = Path(sys.executable).resolve()
LISTENS = """
import socket, sys
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    sys.stdin.read()
"""


async def test_a_livepeer_process_that_was_left_over_is_found(tmp_path: Path) -> None:
    # A process is called what its file is called.
    program = tmp_path / "livepeer"
    program.symlink_to(PYTHON)
    process = await asyncio.create_subprocess_exec(
        program,
        "-c",
        LISTENS,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        number = int(await process.stdout.readline())
        port = await look_at_port("admin_listen", "127.0.0.1", number)
    finally:
        process.stdin.close()
        await process.wait()
    assert port.holder == f"livepeer (pid {process.pid})"
    assert "a go-livepeer process" in judge_port(port).detail


@pytest.mark.parametrize(
    ("begins", "ends", "verdict"),
    [
        (-HOUR, YEAR, Verdict.OK),
        (-HOUR, 24 * HOUR, Verdict.WARN),
        (-2 * HOUR, -HOUR, Verdict.FAIL),
        (HOUR, YEAR, Verdict.FAIL),
    ],
)
def test_a_certificate_file_is_read(
    begins: timedelta, ends: timedelta, verdict: Verdict, tmp_path: Path
) -> None:
    path = tmp_path / "tls.pem"
    write_certificate(path, name="node.example", begins=begins, ends=ends)
    assert judge_certificate_file(path, SystemClock().now()).verdict is verdict


def test_a_missing_or_broken_certificate_file_fails(tmp_path: Path) -> None:
    path = tmp_path / "tls.pem"
    assert "No such file" in judge_certificate_file(path, 0.0).detail
    path.write_text("no certificate")
    assert "no PEM certificate" in judge_certificate_file(path, 0.0).detail
