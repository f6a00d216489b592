import asyncio
import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from node.__main__ import main
from tests.node.nodes import GATEWAY_KEY, Buyer, running_node


def limner(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


async def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, while this one runs a node."""
    command = [sys.executable, "-m", "node", *map(str, arguments)]
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False, timeout=60
    )


def test_help_tells_a_newcomer_what_to_do() -> None:
    said = limner("--help").output
    for word in ("run", "jobs", "earnings", "address", "version", "limner-node run"):
        assert word in said
    assert "allowed_gateways" in limner("run", "--help").output
    assert "24h or 7d" in limner("earnings", "--help").output
    assert limner("version").output.strip()


def test_a_public_address_is_refused_with_the_way_out(tmp_path: Path) -> None:
    result = limner("run", "--listen", "https://0.0.0.0:0", "--data-dir", tmp_path)
    assert result.exit_code == 1
    assert "allowed_gateways" in result.output
    assert "--open" in result.output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prise = 1", "price"),
        ("listen = 5", "listen"),
        ("[limits]\nmax_steps = 0", "limits.max_steps"),
        ("[[models]]\nid = 'a/b'\npath = '/nowhere'", "holds no diffusers model"),
        ("= broken", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_key(tmp_path: Path, text: str, words: str) -> None:
    config = tmp_path / "node.toml"
    config.write_text(text)
    result = limner("run", "--config", config, "--data-dir", tmp_path / "data")
    assert result.exit_code == 1
    assert words in result.output
    assert "Traceback" not in result.output


def test_without_a_journal_the_reports_say_where_they_looked(tmp_path: Path) -> None:
    for command in ("jobs", "earnings"):
        result = limner(command, "--data-dir", tmp_path)
        assert result.exit_code == 1
        assert str(tmp_path) in result.output
    assert not list(tmp_path.iterdir())


def test_a_time_is_a_date_or_a_while_ago(tmp_path: Path) -> None:
    result = limner("jobs", "--since", "yesterday", "--data-dir", tmp_path)
    assert result.exit_code == 2
    assert "write 2026-11-23" in result.output


async def test_the_books_can_be_read_while_the_node_runs_and_balance(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, Buyer(node, GATEWAY_KEY) as buyer:
        for images in (1, 2, 3):
            assert (await buyer.ask(num_images_per_prompt=images)).status == 200
        data = ("--data-dir", tmp_path / "data")
        jobs = json.loads((await run("jobs", *data, "--json")).stdout)
        assert [job["images"] for job in jobs] == [3, 2, 1]
        assert {job["state"] for job in jobs} == {"delivered"}
        total = sum(int(job["fee"]) for job in jobs)
        assert total == 64 * 64 * 6 * 5 // 2
        for by in ("model", "payer"):
            earned = json.loads((await run("earnings", *data, "--json", "--by", by)).stdout)
            assert int(earned["total"]["earned"]) == total
            assert sum(int(line["earned"]) for line in earned["lines"]) == total
        rows = list(
            csv.DictReader(
                io.StringIO(
                    (await run("earnings", *data, "--csv", "--since", "2000-01-01")).stdout
                )
            )
        )
        assert rows[-1]["group"] == "total"
        assert int(rows[-1]["earned"]) == total
        table = (await run("jobs", *data, "--since", "1h")).stdout
        assert table.count("delivered") == 3
        assert "10240 wei" in table
        status = (await buyer.get("/status", admin=True)).json
        assert int(status["earned_since_start"]) == total


async def test_two_nodes_do_not_share_a_data_directory(tmp_path: Path) -> None:
    async with running_node(tmp_path):
        said = await run("run", "--data-dir", tmp_path / "data", "--listen", "http://127.0.0.1:0")
        assert said.returncode == 1
        assert "in use by another limner-node" in said.stderr


def test_the_http_process_imports_no_torch() -> None:
    script = (
        "import sys, node.__main__, node.app; "
        "assert not {'torch', 'diffusers', 'transformers', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
