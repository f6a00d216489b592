"""The audit log: complete, in order, and not to be changed unseen."""

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounting.audit import FILE_NAME, AuditError, AuditLog, Entry, os_user
from tests.gateway.test_cli import limner

WRITER = """
import sys
from pathlib import Path
from gateway.accounting.audit import AuditLog, Entry
log = AuditLog(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(40):
    log.append(Entry(float(number), sys.argv[2], "key made", {"number": number}))
"""


def entry(number: int) -> Entry:
    return Entry(float(number), "ann", "key made", {"key_id": f"k{number}", "note": "ä\n\u2028"})


def test_what_was_appended_is_read(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    assert log.read().entries == ()
    written = [entry(number) for number in range(5)]
    for one in written:
        log.append(one)
    record = log.read()
    assert record.entries == tuple(written)
    assert record.broken_at is None
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


@given(st.data())
def test_a_change_anywhere_but_at_the_end_shows(data: st.DataObject) -> None:
    log_lines = _lines(6)
    number = data.draw(st.integers(0, 4))
    change = data.draw(st.sampled_from(["taken out", "changed", "swapped", "cut"]))
    match change:
        case "taken out":
            del log_lines[number]
        case "changed":
            log_lines[number] = log_lines[number].replace(b"ann", b"bob")
        case "swapped":
            log_lines[number], log_lines[number + 1] = log_lines[number + 1], log_lines[number]
        case _:
            log_lines[number] = log_lines[number][:-9]
    assert _broken_at(log_lines) in {number + 1, number + 2}


def _lines(count: int) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        log = AuditLog(Path(folder))
        for number in range(count):
            log.append(entry(number))
        return (Path(folder) / FILE_NAME).read_bytes().splitlines()


def _broken_at(lines: list[bytes]) -> int | None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / FILE_NAME).write_bytes(b"".join(line + b"\n" for line in lines))
        return AuditLog(Path(folder)).read().broken_at


def test_processes_that_append_at_the_same_time_keep_one_chain(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for name in ("ann", "bob", "cay")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    record = AuditLog(tmp_path).read()
    assert record.broken_at is None
    assert len(record.entries) == 3 * 40
    for name in ("ann", "bob", "cay"):
        mine = [one.about["number"] for one in record.entries if one.who == name]
        assert mine == list(range(40))


def test_secrets_are_not_taken(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    with pytest.raises(ValueError, match="api_key must not be written down"):
        log.append(Entry(0.0, "ann", "key made", {"api_key": "limner_..."}))
    assert log.read().entries == ()


def test_a_log_that_cannot_be_written_is_told_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(AuditError, match=r"audit\.jsonl cannot be used"):
        AuditLog(tmp_path).check()


def test_who_used_sudo_is_told() -> None:
    assert os_user({"SUDO_USER": "ann"}).endswith("(sudo by ann)")
    assert "sudo" not in os_user({})


async def test_commands_leave_their_lines_and_no_secret(tmp_path: Path) -> None:
    where = ("--data-dir", str(tmp_path))
    assert (await limner("keys", "team", "crew", "--wei-per-day", "1 eth", *where)).status == 0
    made = await limner("keys", "create", "me", "--team", "crew", *where)
    bearer = made.out.strip()
    key_id = bearer.split("_")[1]
    assert (await limner("keys", "limit", key_id, "--wei-per-day", "none", *where)).status == 0
    assert (await limner("keys", "revoke", key_id, *where)).status == 0
    assert (await limner("keys", "revoke", "no-such-key", *where)).status == 1
    assert (await limner("keys", "list", *where)).status == 0
    record = await asyncio.to_thread(AuditLog(tmp_path).read)
    assert [one.action for one in record.entries] == [
        "team set",
        "key made",
        "key limited",
        "key revoked",
    ]
    assert [one.about.get("key_id") for one in record.entries] == [None, *[key_id] * 3]
    assert record.entries[0].about["wei_per_day"] == str(10**18)
    assert record.entries[2].about["wei_per_day"] == "none"
    path = tmp_path / FILE_NAME
    text = await asyncio.to_thread(path.read_text)
    assert bearer.split("_", 2)[2] not in text
    listed = await limner("audit", *where)
    assert listed.status == 0
    assert "key revoked" in listed.out
    await asyncio.to_thread(path.write_text, text.replace("crew", "cr3w", 1))
    assert "line 2 does not follow" in (await limner("audit", *where)).err


async def test_nothing_is_done_unrecorded(tmp_path: Path) -> None:
    where = ("--data-dir", str(tmp_path))
    (tmp_path / FILE_NAME).mkdir()
    refused = await limner("keys", "create", "me", *where)
    assert refused.status == 1
    assert "is not done unrecorded" in refused.err
    assert (await limner("keys", "list", "--json", *where)).out.strip() == "[]"
