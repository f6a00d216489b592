"""`limner-gateway` as an operator and a client use it, in processes of its own."""

import asyncio
import csv
import io
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from click.testing import CliRunner

from gateway.__main__ import main
from tests.gateway.identity import make_cheap_identity
from tests.gateway.pictures import real_png
from tests.gateway.stub_orchestrator import StubModel, StubOrchestrator, running
from tests.gateway.waiting import pngs

PROGRAM = str(Path(sys.executable).parent / "limner-gateway")
SMALL = ("--width", "64", "--height", "64", "--steps", "5")


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str


async def limner(*arguments: str, **environment: str) -> Said:
    """Run a command in this process, on a thread: a process of its own takes a second to start."""
    clean: dict[str, str | None] = {
        name: None for name in os.environ if name.startswith("LIMNER_")
    }
    result = await asyncio.to_thread(
        CliRunner().invoke, main, arguments, env={**clean, **environment}
    )
    return Said(result.exit_code, result.stdout, result.stderr)


@dataclass
class Running:
    """A gateway in a process of its own."""

    process: asyncio.subprocess.Process
    url: str
    admin_url: str
    address: str
    log: Path

    async def stop(self) -> int:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 15)


@asynccontextmanager
async def gateway(data: Path, *uris: str) -> AsyncIterator[Running]:
    await make_cheap_identity(data)
    log = data.parent / "log"
    command = [PROGRAM, "run", "--data-dir", str(data), "--json-ready", "--default-model", "m"]
    command += ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    for uri in uris:
        command += ["--orchestrator", uri]
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=errors
        )
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 30)
    ready = json.loads(line)
    assert ready.pop("event") == "ready"
    try:
        yield (served := Running(process, log=log, **ready))
    finally:
        await served.stop()


@pytest.fixture
async def orchestrator() -> AsyncIterator[StubOrchestrator]:
    async with running(StubOrchestrator()) as stub:
        yield stub


async def new_key(data: Path, *options: str) -> dict[str, Any]:
    said = await limner("keys", "create", "me", "--data-dir", str(data), "--json", *options)
    assert said.status == 0, said.err
    key: dict[str, Any] = json.loads(said.out)
    return key


async def usage_of(data: Path, *, requests: int) -> list[dict[str, Any]]:
    """The journal's database is some milliseconds behind the answers."""
    async with asyncio.timeout(10):
        while True:
            listed = await limner("usage", "--data-dir", str(data), "--json")
            lines: list[dict[str, Any]] = json.loads(listed.out)
            if len(lines) == requests and all(line["state"] != "open" for line in lines):
                return lines
            await asyncio.sleep(0.02)


async def test_a_key_made_while_the_gateway_runs_buys_an_image(
    orchestrator: StubOrchestrator, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    async with gateway(data, orchestrator.uri) as served:
        key = (await new_key(data))["key"]
        image = tmp_path / "image.png"
        said = await limner(
            "generate", "a boat", "-o", str(image), *SMALL, "--seed", "7",
            LIMNER_API_KEY=key, LIMNER_GATEWAY_URL=served.url,
        )  # fmt: skip
        assert said.status == 0, said.err
        assert image.read_bytes().startswith(b"\x89PNG")
        assert "seed 7" in " ".join(said.err.split())  # a long path wraps the line
        orchestrator.warnings = "the model reads [75] tokens"
        many = await limner(
            "generate", "a boat", "-o", str(image), *SMALL, "--n", "3", "--url", served.url,
            LIMNER_API_KEY=key,
        )  # fmt: skip
        assert many.status == 0, many.err
        assert "note: the model reads [75] tokens" in many.err
        assert {file.name for file in pngs(tmp_path) if file.parent == tmp_path} == {
            *("image.png", "image-1.png", "image-2.png", "image-3.png")
        }
        lines = await usage_of(data, requests=2)
        assert [(line["state"], line["images"], line["fee"]) for line in lines] == [
            ("settled", 3, str(64 * 64 * 3)),
            ("settled", 1, str(64 * 64)),
        ]
        table = await limner("usage", "--data-dir", str(data))
        assert f"2 requests, 4 images, {64 * 64 * 4} pixels for {64 * 64 * 4} wei" in table.out
        as_csv = await limner("usage", "--data-dir", str(data), "--csv", "--by", "model")
        assert list(csv.DictReader(io.StringIO(as_csv.out))) == [
            {
                "group": "m",
                "requests": "2",
                "images": "4",
                "pixels": "16384",
                "fee": "16384",
                "usd": "0",
                "repeats": "0",
                "repeats_fee": "0",
                "repeats_worth": "0",
            }
        ]
        known = await limner("orchestrators", "--admin-url", served.admin_url, "--json")
        assert json.loads(known.out)[0]["state"] == "ready"
        assert "a boat" not in served.log.read_text()
        assert key not in served.log.read_text()
        assert await served.stop() == 0


async def test_a_revoked_key_stops_within_seconds(
    orchestrator: StubOrchestrator, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    async with gateway(data, orchestrator.uri) as served:
        key = await new_key(data)
        arguments = ("generate", "x", "-o", str(tmp_path / "x.png"), *SMALL, "--url", served.url)
        assert (await limner(*arguments, LIMNER_API_KEY=key["key"])).status == 0
        revoked = await limner("keys", "revoke", key["key_id"], "--data-dir", str(data))
        assert revoked.status == 0
        await asyncio.sleep(2.5)
        said = await limner(*arguments, LIMNER_API_KEY=key["key"])
        assert said.status == 3
        assert "Invalid bearer token" in said.err
        listed = json.loads((await limner("keys", "list", "--data-dir", str(data), "--json")).out)
        assert [(one["name"], one["state"]) for one in listed] == [("me", "revoked")]


async def test_the_name_of_the_file_says_what_it_is(
    orchestrator: StubOrchestrator, tmp_path: Path
) -> None:
    orchestrator.draw = lambda width, height, seed: real_png(width, height, marker=seed)
    async with gateway(tmp_path / "data", orchestrator.uri) as served:
        key = (await new_key(tmp_path / "data"))["key"]
        starts = {"a.JPG": b"\xff\xd8\xff", "b.webp": b"RIFF", "c.png": b"\x89PNG"}
        for name, start in starts.items():
            said = await limner(
                "generate", "a boat", "-o", str(tmp_path / name), *SMALL, "--url", served.url,
                LIMNER_API_KEY=key,
            )  # fmt: skip
            assert said.status == 0, said.err
            assert (tmp_path / name).read_bytes().startswith(start)


async def test_generate_tells_by_its_status_what_to_do(
    orchestrator: StubOrchestrator, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    orchestrator.models = {"m": StubModel(), "other": StubModel()}
    async with gateway(data, orchestrator.uri) as served:
        key = (await new_key(data, "--model", "m"))["key"]
        arguments = ("generate", "x", "-o", str(tmp_path / "x.png"), "--url", served.url)

        async def status_of(*more: str, used: str = key) -> int:
            said = await limner(*arguments, *more, LIMNER_API_KEY=used)
            assert said.err.startswith("Error: ")
            assert "Traceback" not in said.err
            return said.status

        assert await status_of(used="wrong") == 3
        assert await status_of("--model", "other") == 3
        assert await status_of("--model", "nobody/knows") == 4
        assert await status_of("--width", "63") == 4
        assert await status_of("--url", "http://127.0.0.1:1") == 5
        assert await status_of(used="") == 3
        orchestrator.capacity = 0
        assert await status_of(*SMALL) == 5


async def test_64_clients_cost_less_than_150_mb_and_a_stop_is_prompt(
    orchestrator: StubOrchestrator, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    orchestrator.image_bytes = 100_000
    async with gateway(data, orchestrator.uri) as served, aiohttp.ClientSession() as client:
        key = (await new_key(data))["key"]
        headers = {"Authorization": f"Bearer {key}"}
        body = {"prompt": "x", "width": 256, "height": 256}
        watched = psutil.Process(served.process.pid)

        async def ask() -> int:
            async with client.post(
                f"{served.url}/text-to-image", json=body, headers=headers
            ) as response:
                await response.read()
                return response.status

        for _ in range(3):
            statuses = await asyncio.gather(*(ask() for _ in range(64)))
            assert set(statuses) == {200}
        assert watched.memory_info().rss < 150_000_000
        orchestrator.job_seconds = 60
        hanging = asyncio.ensure_future(ask())
        await asyncio.sleep(0.3)
        served.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        served.process.send_signal(signal.SIGTERM)  # asked twice: does not wait
        assert await asyncio.wait_for(served.process.wait(), 3) == 130
        assert isinstance((await asyncio.gather(hanging, return_exceptions=True))[0], Exception)


async def test_the_address_is_the_one_that_serves(tmp_path: Path) -> None:
    data = tmp_path / "data"
    told = (await limner("address", "--data-dir", str(data))).out.strip()
    async with gateway(data) as served:
        assert served.address == told
    assert stat.S_IMODE(data.stat().st_mode) == 0o700


async def test_a_wrong_setting_ends_the_start_with_its_name(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text("[routing]\nmax_prise = 3\n")
    said = await limner("run", "--config", str(config))
    assert said.status == 2
    assert "routing.max_prise: no such setting" in said.err
    assert "did you mean 'max_price'" in said.err
    assert "Traceback" not in said.err


async def test_key_options_are_checked_before_a_key_is_made(tmp_path: Path) -> None:
    data = ("--data-dir", str(tmp_path / "data"))
    for options in (
        ("--expires", "soon"),
        ("--max-price", "cheap"),
        ("--max-in-flight", "0"),
    ):
        assert (await limner("keys", "create", "me", *options, *data)).status == 2
    assert (await limner("keys", "create", "", *data)).status == 2
    assert (await limner("keys", "revoke", "nothing", *data)).status == 1
    made = await limner(
        *("keys", "create", "me", "--expires", "30d", "--max-price", "7/2", "--model", "a"),
        *("--max-in-flight", "3", *data),
    )
    assert made.status == 0
    assert made.out.startswith("limner_")
    listed = json.loads((await limner("keys", "list", "--json", *data)).out)
    assert [(one["max_price"], one["models"], one["max_in_flight"]) for one in listed] == [
        ("7/2", ["a"], 3)
    ]
    assert made.out.strip() not in str(listed)


async def test_limits_of_keys_and_teams_are_set_changed_and_lifted(tmp_path: Path) -> None:
    data = ("--data-dir", str(tmp_path / "data"))
    assert (await limner("keys", "create", "me", "--team", "crew", *data)).status == 2
    said = await limner("keys", "team", "crew", "--wei-per-month", "1 eth", *data)
    assert said.out.strip() == f"crew: {10**18} wei per month"
    options = ("--team", "crew", "--wei-per-day", "5 gwei", "--note", "customer=42")
    made = await limner("keys", "create", "me", *options, "--json", *data)
    key_id = json.loads(made.out)["key_id"]
    changed = ("--requests-per-minute", "7", "--wei-per-day", "none")
    said = await limner("keys", "limit", key_id, *changed, *data)
    assert said.out.strip() == f"{key_id} (me): 7 requests per minute"
    (listed,) = json.loads((await limner("keys", "list", "--json", *data)).out)
    assert listed["team"] == "crew"
    assert listed["metadata"] == {"customer": "42"}
    assert {name: v for name, v in listed["limits"].items() if v} == {"requests_per_minute": "7"}
    for wrong in (
        ("--wei-per-day", "much"),
        ("--requests-per-minute", "-3"),
        ("--pixels-per-minute", "1e3"),
        ("--pixels-per-minute", "9" * 30),
    ):
        assert (await limner("keys", "limit", key_id, *wrong, *data)).status == 2
    assert (await limner("keys", "limit", "nothing", *data)).status == 1
    assert (await limner("keys", "create", "me", "--note", "nonsense", *data)).status == 2


def test_every_command_explains_itself() -> None:
    for arguments in (
        *([], ["run"], ["generate"], ["usage"], ["orchestrators"], ["address"], ["version"]),
        *(["keys"], ["keys", "create"], ["keys", "list"], ["keys", "revoke"], ["keys", "team"]),
        *(["wallet"], ["fund"], ["unlock"], ["withdraw"], ["signer"], ["keystore", "import"]),
    ):
        said = CliRunner().invoke(main, [*arguments, "--help"])
        assert said.exit_code == 0
        assert "Usage: " in said.stdout


def test_the_program_starts_and_tells_its_version() -> None:
    said = subprocess.run([PROGRAM, "version"], capture_output=True, text=True, check=True)
    assert said.stdout.startswith("limner-gateway ")
