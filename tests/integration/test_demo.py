"""`scripts/demo`, as a newcomer runs it, and as a program that needs a network for a while."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from PIL import Image

from scripts.local_network.network import ROOT

pytestmark = pytest.mark.slow


def demo(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "scripts.demo_run", "--data-dir", str(folder / "data")]
    return subprocess.Popen(
        [*command, *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def children_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def assert_gone(processes: Sequence[psutil.Process], seconds: float) -> None:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    assert not alive


def test_one_command_gives_an_image_and_its_account_on_both_sides(tmp_path: Path) -> None:
    wish = ["a red ring", "--seed", "7", "--steps", "2", "--size", "128x96"]
    with demo(tmp_path, *wish, "--out", str(tmp_path)) as running:
        said, errors = running.communicate(timeout=100)
    assert running.returncode == 0, said + errors
    with Image.open(tmp_path / "a-red-ring-7.png") as image:
        assert image.size == (128, 96)
    lines = [line for line in said.splitlines() if "│ gateway" in line or "│ node" in line]
    bought, sold = ([cell.strip() for cell in line.split("│")[1:-1]] for line in lines)
    assert (bought[0], sold[0]) == ("gateway", "node")
    assert bought[1] == sold[1], "the two journals speak of different jobs"
    assert bought[3] == sold[3] == str(128 * 96 * 2_400_000)
    assert "curl" in said


@pytest.mark.parametrize("options", [[], ["--no-anvil"]], ids=["anvil", "py-evm"])
def test_a_paid_image_ends_with_a_redeemed_ticket(tmp_path: Path, options: list[str]) -> None:
    wish = ["a red ring", "--seed", "7", "--steps", "1", "--size", "128x96", "--paid", *options]
    with demo(tmp_path, *wish, "--out", str(tmp_path)) as running:
        said, errors = running.communicate(timeout=110)
    assert running.returncode == 0, said + errors
    rows = [line for line in said.splitlines() if "│ gateway" in line or "│ node" in line]
    cells = [[cell.strip() for cell in row.split("│")[1:-1]] for row in rows]
    assert cells[0][1:2] == cells[1][1:2], "the two journals speak of different jobs"
    assert cells[2][1:] == cells[3][1:], "jobs, credit, charges and what is left"
    prize = re.search(r"won: (\d+); redeemed on the chain: (.+); in the node's books: (.+)", said)
    assert prize is not None, said
    assert int(prize[1]) > 0
    assert prize[2] == prize[3] != "0 wei"


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_served_network_leaves_no_process_behind(tmp_path: Path, end: signal.Signals) -> None:
    with demo(tmp_path, "--serve", "--json") as running:
        assert running.stdout is not None
        line = json.loads(running.stdout.readline())
        assert set(line) == {
            *("gateway_url", "gateway_admin_url", "api_key", "node_url", "node_admin_url"),
            "data_dir",
        }
        with urllib.request.urlopen(f"{line['gateway_url']}/health", timeout=10) as answer:  # noqa: S310
            assert answer.status == 200
        left = children_of(running)
        assert len(left) >= 3, "node, its worker and the gateway"
        running.send_signal(end)
        status = running.wait(30)
        assert_gone(left, 30)
        assert not running.stdout.read(), "stdout carries that one line only"
    assert status == (-signal.SIGKILL if end == signal.SIGKILL else 0)


def test_two_demos_do_not_share_a_folder(tmp_path: Path) -> None:
    with demo(tmp_path, "--serve", "--json") as first:
        assert first.stdout is not None
        first.stdout.readline()
        with demo(tmp_path) as second:
            said, errors = second.communicate(timeout=30)
        assert second.returncode == 1
        assert "another demo" in said + errors
        first.terminate()
        first.wait(30)
