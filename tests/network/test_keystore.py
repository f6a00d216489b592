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
from network.keystore import create_keystore, import_key, load_or_create, open_keystore

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


async def imported(
    folder: Path, source: bytes, opening: str = "", *, replace: bool = False
) -> Path | None:
    address, kept = await import_key(
        source, opening, folder, "mine", replace=replace, scrypt_n=WEAK
    )
    assert (await open_keystore(folder / "keystore.json", "mine")).address == address == ADDRESS
    assert stat.S_IMODE((folder / "keystore.json").stat().st_mode) == 0o600
    return kept


async def test_a_key_is_imported_from_hex_digits_or_from_another_keystore(tmp_path: Path) -> None:
    await imported(tmp_path / "hex", KEY.hex().encode() + b"\n")
    await imported(tmp_path / "prefixed", b"0x" + KEY.hex().upper().encode())
    for number, kdf in enumerate(("scrypt", "pbkdf2")):
        content = Account.encrypt(KEY, "theirs", kdf=kdf, iterations=4)
        await imported(tmp_path / f"keystore{number}", orjson.dumps(content), "theirs")


async def test_an_account_is_replaced_only_when_asked_and_then_kept(tmp_path: Path) -> None:
    former = await load_or_create(tmp_path, "before", scrypt_n=WEAK)
    with pytest.raises(ConfigError, match="--replace"):
        await imported(tmp_path, KEY.hex().encode())
    assert (await open_keystore(tmp_path / "keystore.json", "before")).address == former.address
    kept = await imported(tmp_path, KEY.hex().encode(), replace=True)
    assert kept is not None
    assert (await open_keystore(kept, "before")).address == former.address
    again = await imported(tmp_path, KEY.hex().encode(), replace=True)
    assert again is not None
    assert again != kept
    assert len(os.listdir(tmp_path)) == 3  # noqa: PTH208


@pytest.mark.parametrize(
    "source",
    [
        b"",
        b"00" * 32,
        b"ff" * 32,
        KEY.hex().encode()[:-1],
        b"{}",
        b"\xff\xfe",
        orjson.dumps(Account.encrypt(KEY, "other", kdf="pbkdf2", iterations=8)),
    ],
)
async def test_what_holds_no_key_is_refused_without_a_word_of_it(
    tmp_path: Path, source: bytes
) -> None:
    with pytest.raises(ConfigError) as raised:
        await imported(tmp_path, source, "theirs")
    assert KEY.hex()[:16] not in str(raised.value)
    assert raised.value.__cause__ is None
    assert os.listdir(tmp_path) == []  # noqa: PTH208
