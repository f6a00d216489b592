"""Two processes never send for one account; a third learns who does."""

import subprocess
import sys
from pathlib import Path

import pytest

from network.chain.key_lock import hold_key, user_folder
from network.errors import ConfigError
from network.units import Address

ROOT = Path(__file__).resolve().parents[3]
ACCOUNT = Address(b"a" * 20)
HOLD = """
import sys
from pathlib import Path
from network.chain.key_lock import hold_key
with hold_key(b"a" * 20, 7, [Path(folder) for folder in sys.argv[1:]]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_named_and_its_death_frees_the_key_case_17(tmp_path: Path) -> None:
    shared, own, other = tmp_path / "shared", tmp_path / "own", tmp_path / "other"
    command = [sys.executable, "-c", HOLD, str(own), str(shared)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        # Another data directory, the same user: the shared folder tells.
        with (
            pytest.raises(ConfigError, match=f"process {process.pid}"),
            hold_key(ACCOUNT, 7, [other, shared]),
        ):
            pytest.fail("two processes hold one key")
        with hold_key(ACCOUNT, 8, [other, shared]), hold_key(Address(b"b" * 20), 7, [shared]):
            pass
        process.kill()
        process.wait()
    with hold_key(ACCOUNT, 7, [other, shared]):
        pass
    assert (shared / "0x6161616161616161616161616161616161616161.7.lock").exists()


def test_the_shared_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert user_folder() == tmp_path / "limner"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert user_folder() == tmp_path / "home" / ".local" / "state" / "limner"


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match="cannot write"),
        hold_key(ACCOUNT, 7, [tmp_path / "file" / "below"]),
    ):
        pytest.fail("held")
