"""Where a passphrase is looked for, and what is said when it is nowhere."""

import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from network.errors import ConfigError
from network.passphrase import PassphraseSources, find_passphrase, must_be_asked


def sources(folder: Path, given: str = "", file: Path | None = None) -> PassphraseSources:
    return PassphraseSources(given, file, folder / "made", folder / "keystore.json")


def written(path: Path, text: str) -> Path:
    path.touch(0o600)
    path.write_text(text)
    return path


def test_the_setting_comes_first_then_the_file_then_what_was_made(tmp_path: Path) -> None:
    file = written(tmp_path / "file", "from a file\n")
    made = find_passphrase(sources(tmp_path))
    assert len(made) >= 32
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o600
    assert find_passphrase(sources(tmp_path)) == made
    assert find_passphrase(sources(tmp_path, file=file)) == "from a file"
    assert find_passphrase(sources(tmp_path, "given", file)) == "given"


def test_only_a_keystore_that_nothing_opens_needs_a_person(tmp_path: Path) -> None:
    assert not must_be_asked(sources(tmp_path)), "a first start makes a passphrase"
    written(tmp_path / "keystore.json", "{}")
    assert must_be_asked(sources(tmp_path))
    assert not must_be_asked(sources(tmp_path, "given"))
    assert not must_be_asked(sources(tmp_path, file=tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="nothing opens"):
        find_passphrase(sources(tmp_path))
    assert not (tmp_path / "made").exists(), "a made-up passphrase would open nothing"
    written(tmp_path / "made", "old")
    assert not must_be_asked(sources(tmp_path))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"one\ntwo\n", "more than one line"),
        (b"x" * 5000, "more than one line"),
        (b"s3cret\xff", "no UTF-8"),
    ],
)
def test_a_file_that_does_not_do_is_named_and_not_quoted(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=problem) as raised:
        find_passphrase(sources(tmp_path, file=file))
    assert str(file) in str(raised.value)
    assert "s3cret" not in repr(raised.value.__cause__) + str(raised.value)
    with pytest.raises(ConfigError, match="does not exist"):
        find_passphrase(sources(tmp_path, file=tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="cannot read"):
        find_passphrase(sources(tmp_path, file=tmp_path))


def test_a_file_that_others_may_read_is_complained_of(tmp_path: Path) -> None:
    file = written(tmp_path / "file", "s3cret")
    with capture_logs() as logs:
        find_passphrase(sources(tmp_path, file=file))
        assert logs == []
        file.chmod(0o640)
        find_passphrase(sources(tmp_path, file=file))
    assert [line["event"] for line in logs] == ["passphrase_file_is_open_to_others"]
    assert "s3cret" not in str(logs)


def test_programs_that_start_at_once_on_a_new_directory_agree(tmp_path: Path) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(find_passphrase(sources(tmp_path))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
