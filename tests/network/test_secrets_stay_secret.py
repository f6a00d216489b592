"""Real processes of both roles: no key and no passphrase in the list of processes or in a log."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil
import pytest

from network.keystore import create_keystore
from scripts.local_network.network import toml

KEY = bytes.fromhex("4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318")
ADDRESS = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"
PASSPHRASE = "correct-horse-battery"
BIN = Path(sys.executable).parent
ROLES = ("limner-gateway", "limner-node")
PREFIX = {"limner-gateway": "LIMNER_GATEWAY__", "limner-node": "LIMNER_NODE__"}
#: Gives a program a terminal of its own and copies what is typed and shown.
TERMINAL = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"


def run(
    *command: str, stdin: str = "", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    clean = {name: text for name, text in os.environ.items() if not name.startswith("LIMNER_")}
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        input=stdin,
        env={**clean, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    asyncio.run(create_keystore(folder / "keystore.json", PASSPHRASE, KEY, scrypt_n=2))
    return folder


@contextmanager
def serving(
    role: str, folder: Path, log: IO[bytes], **environment: str
) -> Iterator[psutil.Process]:
    admin = {"limner-gateway": "", "limner-node": "127.0.0.1:0"}[role]
    listen = {"limner-gateway": "127.0.0.1:0", "limner-node": "http://127.0.0.1:0"}[role]
    command = [str(BIN / role), "run", "--data-dir", str(folder / "data"), "--listen", listen]
    command += ["--admin-listen", admin, "--log-level", "debug"]
    with subprocess.Popen(
        [*command, "--json-ready", "--config", str(folder / "settings.toml")],
        stdout=subprocess.PIPE,
        stderr=log,
        env={**os.environ, **environment},
    ) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["address"] == ADDRESS
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


@pytest.mark.parametrize("by", ["environment", "file"])
@pytest.mark.parametrize("role", ROLES)
def test_a_serving_program_shows_its_secrets_nowhere(
    tmp_path: Path, data: Path, role: str, by: str
) -> None:
    environment, settings = {}, {}
    if by == "environment":
        environment[f"{PREFIX[role]}KEYSTORE__PASSPHRASE"] = PASSPHRASE
    else:
        file = tmp_path / "passphrase"
        file.touch(0o600)
        file.write_text(f"{PASSPHRASE}\n")
        settings["keystore.passphrase_file"] = str(file)
    (tmp_path / "settings.toml").write_text(toml(settings))
    log = tmp_path / "log"
    with log.open("wb") as errors, serving(role, data.parent, errors, **environment) as process:
        assert role in " ".join(process.cmdline())
        for one in (process, *process.children(recursive=True)):
            _assert_no_secret(Path(f"/proc/{one.pid}/cmdline").read_bytes().decode())
    assert "serving" in log.read_text()
    _assert_no_secret(log.read_text())


@pytest.mark.parametrize("role", ROLES)
def test_a_wrong_passphrase_is_refused_and_not_shown(data: Path, role: str) -> None:
    said = run(
        role, "address", "--data-dir", str(data),
        environment={f"{PREFIX[role]}KEYSTORE__PASSPHRASE": PASSPHRASE + "x"},
    )  # fmt: skip
    assert said.returncode != 0
    assert "the passphrase is wrong" in said.stderr
    _assert_no_secret(said.stdout + said.stderr)


@pytest.mark.parametrize("role", ROLES)
def test_without_a_terminal_nobody_is_asked(data: Path, role: str) -> None:
    said = run(role, "address", "--data-dir", str(data))
    assert said.returncode != 0
    assert "nothing opens" in said.stderr
    assert "keystore.passphrase_file" in said.stderr
    assert not [path for path in data.iterdir() if "passphrase" in path.name]


@pytest.mark.parametrize("role", ROLES)
def test_on_a_terminal_the_passphrase_is_asked_for_and_not_echoed(data: Path, role: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TERMINAL, str(BIN / role), "address", "--data-dir", str(data)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        shown = b""
        while b"Passphrase of" not in shown or not shown.endswith(b": "):
            chunk = os.read(process.stdout.fileno(), 4096)
            assert chunk, shown
            shown += chunk
        process.stdin.write(f"{PASSPHRASE}\n".encode())
        process.stdin.flush()
        shown += process.stdout.read()
    assert process.returncode == 0, shown
    assert ADDRESS in shown.decode()
    _assert_no_secret(shown.decode())


@pytest.mark.parametrize("role", ROLES)
def test_a_key_is_imported_through_a_pipe(tmp_path: Path, role: str) -> None:
    folder = tmp_path / "data"
    data = ("--data-dir", str(folder))
    said = run(role, "keystore", "import", "/dev/stdin", *data, stdin=KEY.hex())
    assert said.returncode == 0, said.stderr
    assert said.stdout.strip() == ADDRESS
    _assert_no_secret(said.stdout + said.stderr)
    assert KEY.hex() not in (folder / "keystore.json").read_text()
    assert run(role, "address", *data).stdout.strip() == ADDRESS
    again = run(role, "keystore", "import", "/dev/stdin", *data, stdin="11" * 32)
    assert again.returncode == 1
    assert "--replace" in again.stderr
    assert run(role, "address", *data).stdout.strip() == ADDRESS


@pytest.mark.parametrize("role", ROLES)
def test_a_keystore_is_imported_with_a_passphrase_of_its_own(
    tmp_path: Path, data: Path, role: str
) -> None:
    opening = tmp_path / "opening"
    opening.touch(0o600)
    opening.write_text(PASSPHRASE)
    folder = tmp_path / "new"
    said = run(
        role, "keystore", "import", str(data / "keystore.json"), "--data-dir", str(folder),
        "--source-passphrase-file", str(opening),
        environment={f"{PREFIX[role]}KEYSTORE__PASSPHRASE": "another"},
    )  # fmt: skip
    assert said.stdout.strip() == ADDRESS, said.stderr
    told = run(
        role, "address", "--data-dir", str(folder),
        environment={f"{PREFIX[role]}KEYSTORE__PASSPHRASE": "another"},
    )  # fmt: skip
    assert told.stdout.strip() == ADDRESS


def _assert_no_secret(text: str) -> None:
    assert PASSPHRASE not in text
    assert KEY.hex() not in text
