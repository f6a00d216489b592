"""The devnet's folder: what is drawn once, and what a reset may delete."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from network.devnet.__main__ import main
from network.devnet.home import Home, open_home
from network.errors import ConfigError


def account(home: Home, role: str) -> str:
    return str(asyncio.run(home.account(role)).address)


def furnished(folder: Path) -> Home:
    """As a run leaves it."""
    with open_home(folder) as home:
        home.owner()
        for role in ("node", "gateway"):
            account(home, role)
            home.write_config(role, {})
        for path in (home.state_file, home.network_file, home.log_file):
            path.write_text("{}")
        return home


def test_accounts_are_drawn_once(tmp_path: Path) -> None:
    home = furnished(tmp_path / "devnet")
    for role in ("node", "gateway"):
        assert account(home, role) == account(home, role)
        for name in ("keystore.json", "devnet.passphrase"):
            assert (home.folder / role / name).stat().st_mode & 0o077 == 0
    assert account(home, "node") != account(home, "gateway")
    assert home.secrets_file.stat().st_mode & 0o077 == 0


def test_a_reset_deletes_what_a_devnet_made_and_nothing_else(tmp_path: Path) -> None:
    home = furnished(tmp_path / "devnet")
    before = home.owner().address, account(home, "node")
    (home.folder / "notes.txt").write_text("mine")
    home.reset()
    assert sorted(path.name for path in home.folder.iterdir()) == ["lock", "notes.txt"]
    assert home.owner().address != before[0]
    assert account(home, "node") != before[1]


@pytest.mark.parametrize("secrets", [None, "{}", "[]", "not JSON"])
def test_a_reset_refuses_a_folder_that_no_devnet_made(tmp_path: Path, secrets: str | None) -> None:
    """`--data-dir ~ --reset` is a slip that must not cost anybody a folder called node."""
    precious = tmp_path / "node" / "work"
    precious.parent.mkdir()
    precious.write_text("mine")
    if secrets is not None:
        (tmp_path / "secrets.json").write_text(secrets)
    result = CliRunner().invoke(main, ["run", "--data-dir", str(tmp_path), "--reset"])
    assert result.exit_code == 1
    assert "data_dir" in result.output
    assert precious.read_text() == "mine"
    assert secrets is None or (tmp_path / "secrets.json").read_text() == secrets


def test_without_a_kept_chain_a_start_begins_anew(tmp_path: Path) -> None:
    """Books that tell of another chain would contradict this one's."""
    home = furnished(tmp_path / "devnet")
    before = account(home, "node")
    home.prepare(uses_anvil=True, reset=False)
    assert account(home, "node") == before
    home.state_file.unlink()
    home.prepare(uses_anvil=True, reset=False)
    assert account(home, "node") != before


def test_a_kept_chain_is_not_lost_for_want_of_anvil(tmp_path: Path) -> None:
    home = furnished(tmp_path / "devnet")
    before = account(home, "node")
    with pytest.raises(ConfigError, match="--reset"):
        home.prepare(uses_anvil=False, reset=False)
    assert account(home, "node") == before
    home.prepare(uses_anvil=False, reset=True)
    assert account(home, "node") != before


def test_a_reset_of_a_new_folder_is_nothing(tmp_path: Path) -> None:
    with open_home(tmp_path / "devnet") as home:
        home.reset()
        home.reset()


def test_words_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with open_home(tmp_path) as home:
        home.secrets_file.write_text(json.dumps({"words": "few"}))
        with pytest.raises(ConfigError, match=r"secrets\.json"):
            home.owner()
