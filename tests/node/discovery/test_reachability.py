"""The node looks at its own service URI, in the background, and says what a stranger would see."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from network.findings import Finding, Verdict, fail, ok, skip, warn
from network.reachability.judgement import Expectation
from network.runtime.clock import SystemClock
from node.discovery import reachability
from node.discovery.reachability import SelfCheck, pause_after, stranger_look
from tests.gateway.waiting import until_async
from tests.node.nodes import GATEWAY_KEY, NODE_KEY, running_node

URI = "https://node.example:8936"
GOOD = (ok("service URI", URI), ok("account", "0x answers"))
BAD = (ok("service URI", URI), fail("account", "another is there", "correct service_uri"))
UNSURE = (ok("service URI", URI), skip("connection", "hairpin", "try from elsewhere"))


class Looks:
    """What one look after the other shows."""

    def __init__(self, *looks: Sequence[Finding]) -> None:
        self._looks = list(looks)

    async def __call__(self) -> Sequence[Finding]:
        return self._looks.pop(0)


async def told(*looks: Sequence[Finding]) -> list[dict[str, Any]]:
    check = SelfCheck(URI, Looks(*looks), SystemClock())
    with capture_logs() as lines:
        for _ in looks:
            await check.step()
    return [dict(line) for line in lines]


async def test_one_line_tells_what_a_stranger_sees_and_only_news_is_told() -> None:
    lines = await told(GOOD, GOOD, BAD, BAD, GOOD)
    assert [line["log_level"] for line in lines] == ["info", "warning", "info"]
    assert lines[1]["what"] == "account: another is there"
    assert lines[1]["advice"] == "correct service_uri"
    assert "strangers do not reach the node" in lines[1]["event"]


async def test_behind_a_router_without_hairpin_it_is_said_that_this_cannot_tell() -> None:
    (line,) = await told(UNSURE)
    assert line["event"] == "whether strangers reach the node cannot be told from here"
    assert (line["what"], line["advice"]) == ("hairpin", "try from elsewhere")


async def test_what_works_but_badly_is_not_called_unreachable() -> None:
    (line,) = await told((*GOOD, warn("terms", "slow", "look at its load")))
    assert line["event"] == "strangers reach the node, but"


def test_the_next_look_is_soon_after_a_failure_and_ever_later() -> None:
    pauses = [pause_after(failures) for failures in range(12)]
    assert pauses[0] == 3600
    assert pauses[1:4] == [30, 60, 120]
    assert pauses[1:] == sorted(pauses[1:])
    assert max(pauses) == 3600
    assert pause_after(10**6) == 3600


async def test_status_tells_what_was_found(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(reachability, "_FIRST_SECONDS", 0.0)
    async with (
        running_node(tmp_path, listen="https://127.0.0.1:0") as node,
        aiohttp.ClientSession() as session,
    ):

        async def status() -> dict[str, Any]:
            async with session.get(f"{node.admin_url}/status") as response:
                found: dict[str, Any] = (await response.json())["reachability"]
                return found

        async def is_checked() -> bool:
            return (await status())["checked_at"] is not None

        await until_async(is_checked)
        found = await status()
    assert found["uri"] == node.url
    assert found["verdict"] != "fail", found
    by_name = {finding["what"]: finding for finding in found["findings"]}
    assert by_name["account"]["verdict"] == "ok"
    assert "health" not in by_name


async def test_the_check_can_be_left_out(tmp_path: Path) -> None:
    settings = {"check": False}
    async with (
        running_node(tmp_path, reachability=settings) as node,
        aiohttp.ClientSession() as session,
        session.get(f"{node.admin_url}/status") as response,
    ):
        assert (await response.json())["reachability"] is None


@pytest.mark.parametrize("key", [NODE_KEY, GATEWAY_KEY])
async def test_a_uri_that_leads_to_another_node_is_a_failure(tmp_path: Path, key: Any) -> None:
    async with running_node(tmp_path) as node:
        look = stranger_look(node.url, Expectation(key.address), "0.1.0", SystemClock())
        verdict = await SelfCheck(node.url, look, SystemClock()).step()
    assert (verdict is Verdict.FAIL) is (key is GATEWAY_KEY)
