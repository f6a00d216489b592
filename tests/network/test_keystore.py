"""Keystores: ours and other programs', whole and broken."""

import asyncio
import json
import os
import stat
from pathlib import Path

import orjson
import pytest
from eth_account import Account

from network.errors import ConfigError
from network.identity import parse_address
from network.keystore import create_keystore, load_or_create, open_keystore

KEY = bytes.fromhex("4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318")
ADDRESS = parse_address("0x2c7536E3605D9C16a7a3D7b1898e529396a65c23")
WEAK = 2


async def test_the_first_start_makes_an_account_and_the_next_finds_it(tmp_path: Path) -> None:
    made = await load_or_create(tmp_path / "new", "open sesame", scrypt_n=WEAK)
    found = await load_or_create(tmp_path / "new", "open sesame", scrypt_n=WEAK)
    assert made.address == found.address
    (file,) = (tmp_path / "new").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_two_programs_that_start_at_once_share_one_account(tmp_path: Path) -> None:
    signers = await asyncio.gather(
        *(load_or_create(tmp_path, "open sesame", scrypt_n=WEAK) for _ in range(6))
    )
    assert len({signer.address for signer in signers}) == 1
    assert len(os.listdir(tmp_path)) == 1  # noqa: PTH208  no drafts left behind


async def test_a_keystore_is_one_that_eth_account_opens(tmp_path: Path) -> None:
    await create_keystore(tmp_path / "key.json", "p\u00e4ss", KEY, scrypt_n=WEAK)
    content = orjson.loads((tmp_path / "key.json").read_bytes())
    assert bytes(Account.decrypt(content, "p\u00e4ss")) == KEY


async def test_a_keystore_of_another_program_opens(tmp_path: Path) -> None:
    content = Account.encrypt(KEY, "open sesame", kdf="pbkdf2", iterations=8)
    (tmp_path / "key.json").write_bytes(orjson.dumps(content))
    assert (await open_keystore(tmp_path / "key.json", "open sesame")).address == ADDRESS


async def test_a_keystore_is_never_overwritten(tmp_path: Path) -> None:
    await create_keystore(tmp_path / "key.json", "one", KEY, scrypt_n=WEAK)
    with pytest.raises(FileExistsError):
        await create_keystore(tmp_path / "key.json", "two", KEY, scrypt_n=WEAK)
    assert (await open_keystore(tmp_path / "key.json", "one")).address == ADDRESS


async def test_a_wrong_passphrase_is_told_from_a_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    with pytest.raises(ConfigError, match=r"cannot read .*key\.json"):
        await open_keystore(path, "open sesame")
    await create_keystore(path, "open sesame", KEY, scrypt_n=WEAK)
    with pytest.raises(ConfigError, match="passphrase is wrong"):
        await open_keystore(path, "open barley")
    for broken in (b"", b"[]", b"{}", b'{"version":3,"crypto":5}', b'{"version":3}', b"\xff"):
        path.write_bytes(broken)
        with pytest.raises(ConfigError, match=r"key\.json"):
            await open_keystore(path, "open sesame")


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"n": 2**30}, "512 MiB"),
        ({"p": 10**6}, "16 passes"),
        ({"n": 3}, "not a version 3 keystore"),
        ({"n": -1}, "not a version 3 keystore"),
        ({"r": 10**30}, "512 MiB"),
        ({"salt": "zz"}, "not a version 3 keystore"),
        ({"salt": None}, "not a version 3 keystore"),
    ],
)
async def test_a_keystore_cannot_ask_for_all_memory_or_nonsense(
    tmp_path: Path, params: dict[str, object], reason: str
) -> None:
    path = tmp_path / "key.json"
    await create_keystore(path, "open sesame", KEY, scrypt_n=WEAK)
    content = json.loads(path.read_bytes())
    content["crypto"]["kdfparams"] |= params
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=reason):
        await open_keystore(path, "open sesame")


async def test_a_keystore_asks_for_a_bounded_number_of_rounds(tmp_path: Path) -> None:
    content = Account.encrypt(KEY, "open sesame", kdf="pbkdf2", iterations=8)
    content["crypto"]["kdfparams"]["c"] = 10**9
    (tmp_path / "key.json").write_bytes(orjson.dumps(content))
    with pytest.raises(ConfigError, match="rounds"):
        await open_keystore(tmp_path / "key.json", "open sesame")


async def test_a_scrypt_keystore_of_another_program_opens(tmp_path: Path) -> None:
    content = Account.encrypt(KEY, "open sesame", kdf="scrypt", iterations=4)
    (tmp_path / "key.json").write_bytes(orjson.dumps(content))
    assert (await open_keystore(tmp_path / "key.json", "open sesame")).address == ADDRESS
