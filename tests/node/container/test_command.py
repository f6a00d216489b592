"""`limner-node runner` as a process."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from tests.node.test_command import limner

SECRET = "a-secret-in-the-environment"


@contextmanager
def runner(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """The process, and what it writes to stdout; its log goes to `folder`/log."""
    command = [sys.executable, "-m", "node", "runner", "--data-dir", str(folder / "data")]
    command += ["--listen", "127.0.0.1:0", *arguments]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **(environment or {})},
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            yield process, process.stdout
        finally:
            process.kill()


def told(url: str, path: str) -> Any:
    with urllib.request.urlopen(url + path, timeout=30) as answer:  # noqa: S310  our own
        return json.loads(answer.read())


def test_it_prints_the_line_for_go_livepeer_serves_and_stops_in_order(tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    with runner(tmp_path, "--model", "limner/shapes", "--token-file", str(token_file)) as (
        process,
        stdout,
    ):
        entry = json.loads(stdout.readline())
        # Long before the model is there: the port opens first.
        assert told(entry["url"], "/health")["status"] in {"LOADING", "OK"}
        assert told(entry["url"], "/version")["model_id"] == "limner/shapes"
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=60)
        assert process.returncode == 0
    assert rest == ""
    assert entry == {
        "pipeline": "text-to-image",
        "model_id": "limner/shapes",
        "warm": True,
        "capacity": 4,
        "url": entry["url"],
        "token": f"<content of {token_file}>",
    }
    log = (tmp_path / "log").read_text()
    assert token_file.read_text().strip() not in log
    assert str(token_file) in log
    assert "stopped" in log
    assert "Traceback" not in log


def test_it_takes_the_place_of_an_ai_runner_by_its_variables(tmp_path: Path) -> None:
    environment = {
        "PIPELINE": "text-to-image",
        "MODEL_ID": "limner/shapes",
        "AUTH_TOKEN": SECRET,
        "VERSION": "0.14.1",
    }
    with runner(tmp_path, "--json-ready", environment=environment) as (_, stdout):
        line = stdout.readline()
        ready = json.loads(line)
        assert ready["event"] == "ready"
        assert [entry["model_id"] for entry in ready["ai_models"]] == ["limner/shapes"]
        about = {"pipeline": "text-to-image", "model_id": "limner/shapes", "version": "0.14.1"}
        assert told(ready["url"], "/version") == about
    assert SECRET not in line
    assert SECRET not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--listen", "0.0.0.0:0"], {}, "--token-file FILE makes one"),
        (["--listen", "somewhere"], {}, 'write "host:port"'),
        (["--model", "nobody/has-this"], {}, "limner-node models pull nobody/has-this"),
        ([], {"PIPELINE": "upscale"}, "has text-to-image only"),
        ([], {"AUTH_TOKEN": "not visible\u00e9"}, "container.token"),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_out(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    environment: dict[str, str],
    words: str,
) -> None:
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    result = limner("runner", "--data-dir", tmp_path / "data", *arguments)
    assert result.exit_code == 1
    assert words in result.output
    assert "Traceback" not in result.output
    assert "not visible" not in result.output


def test_help_tells_how_to_plug_it_in() -> None:
    said = limner("runner", "--help").output
    for word in ("aiModels.json", "--token-file", "MODEL_ID", "--open"):
        assert word in said
    assert "runner" in limner("--help").output
