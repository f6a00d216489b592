"""Keystores as they go wrong on disks."""

import os
from pathlib import Path

import pytest

from network.doctor.keys import judge_folder, look_at_account
from network.findings import Verdict
from network.identity import KeySigner
from network.keystore import create_keystore
from network.passphrase import PassphraseSources

KEY = b"\x11" * 32


def sources(folder: Path, *, given: str = "", file: Path | None = None) -> PassphraseSources:
    return PassphraseSources(given, file, folder / "passphrase", folder / "keystore.json")


async def made(folder: Path) -> Path:
    path = folder / "keystore.json"
    await create_keystore(path, "right", KEY, scrypt_n=2)
    return path


async def test_a_good_keystore_opens(tmp_path: Path) -> None:
    await made(tmp_path)
    account = await look_at_account(sources(tmp_path, given="right"))
    assert account.signer is not None
    assert account.signer.address == KeySigner(KEY).address
    assert {finding.verdict for finding in account.findings} == {Verdict.OK}


async def test_looking_makes_nothing(tmp_path: Path) -> None:
    account = await look_at_account(sources(tmp_path))
    assert account.signer is None
    assert [finding.verdict for finding in account.findings] == [Verdict.SKIP]
    assert not any(os.scandir(tmp_path))


@pytest.mark.parametrize("content", ["", "{}", "[" * 100_000, '{"version": 3}'])
async def test_a_damaged_keystore_fails(tmp_path: Path, content: str) -> None:
    (tmp_path / "keystore.json").write_text(content)
    account = await look_at_account(sources(tmp_path, given="right"))
    assert account.signer is None
    assert account.findings[0].verdict is Verdict.FAIL
    assert "keystore.json" in account.findings[0].detail


async def test_a_keystore_that_is_a_folder_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "keystore.json").mkdir()
    account = await look_at_account(sources(tmp_path, given="right"))
    assert account.findings[0].verdict is Verdict.FAIL
    assert "cannot read" in account.findings[0].detail


async def test_a_wrong_or_missing_passphrase_fails(tmp_path: Path) -> None:
    await made(tmp_path)
    wrong = await look_at_account(sources(tmp_path, given="wrong"))
    assert "the passphrase is wrong" in wrong.findings[0].detail
    missing = await look_at_account(sources(tmp_path))
    assert "nothing opens" in missing.findings[0].detail
    nowhere = await look_at_account(sources(tmp_path, file=tmp_path / "gone"))
    assert "does not exist" in nowhere.findings[0].detail


async def test_files_that_others_may_read_are_told(tmp_path: Path) -> None:
    path = await made(tmp_path)
    (tmp_path / "passphrase").write_text("right\n")
    (tmp_path / "passphrase").chmod(0o600)
    path.chmod(0o644)
    account = await look_at_account(sources(tmp_path))
    modes = {finding.what: finding for finding in account.findings}["secret files"]
    assert modes.verdict is Verdict.WARN
    assert modes.advice == f"chmod 600 {path}"
    assert account.signer is not None


def test_a_data_directory_is_its_owners(tmp_path: Path) -> None:
    assert judge_folder(tmp_path / "new").verdict is Verdict.SKIP
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    assert judge_folder(folder).verdict is Verdict.OK
    folder.chmod(0o755)
    assert judge_folder(folder).verdict is Verdict.WARN
    (tmp_path / "file").write_text("")
    assert judge_folder(tmp_path / "file").verdict is Verdict.FAIL
