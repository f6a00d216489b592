"""Apps of others register at a running node."""

import socket
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from network.errors import ConfigError
from tests.node.nodes import Answer, Buyer, running_node, settings_for

SECRET = "registration-secret-of-the-operator"
RUNNERS: dict[str, Any] = {"runners": {"secret": SECRET}}
APP: dict[str, Any] = {
    "runner_url": "http://127.0.0.1:9",
    "app": "acme/upscaler",
    "mode": "single-shot",
    "capacity": 2,
    "price_info": {"price": 0.003, "currency": "usd", "unit": "fixed"},
    "session_ids": [],
    "status": "ready",
}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


async def beat(buyer: Buyer, secret: str = SECRET, **changes: Any) -> Answer:
    body = orjson.dumps({**APP, **changes})
    return await buyer.post("/runners/heartbeat", body, {"Authorization": secret})


async def test_a_runner_registers_beats_and_leaves(tmp_path: Path) -> None:
    async with running_node(tmp_path, **RUNNERS) as node, Buyer(node) as buyer:
        first = await beat(buyer)
        assert first.status == 200
        told = first.json
        assert told.keys() == {
            *("runner_id", "orchestrator", "heartbeat_interval", "heartbeat_ttl"),
            *("heartbeat_secret", "session_ids"),
        }
        assert (told["heartbeat_interval"], told["heartbeat_ttl"]) == ("5s", "20s")
        assert told["orchestrator"] == node.url
        own, runner_id = told["heartbeat_secret"], told["runner_id"]
        again = await beat(buyer, own, runner_id=runner_id, status="loading")
        assert again.status == 200
        assert "heartbeat_secret" not in again.json
        status = (await buyer.get("/status", admin=True)).json["apps_of_others"]
        (line,) = status["runners"]
        assert (line["id"], line["app"], line["asked"]) == (
            runner_id,
            APP["app"],
            "0.003 USD fixed",
        )
        assert (line["sold"], line["why_not"]) == (False, 'its status is "loading"')
        for secret, wanted in (("x", 401), (own, 204), (SECRET, 404)):
            path = f"/runners/{runner_id}/unregister"
            assert (await buyer.post(path, b"", {"Authorization": secret})).status == wanted
        assert (await beat(buyer, own, runner_id=runner_id)).status == 401
        status = (await buyer.get("/status", admin=True)).json["apps_of_others"]
        assert status["runners"] == []
        assert status["refused_heartbeats"] == {"wrong_secret": 2, "not_found": 1}


async def test_refusals_come_in_the_envelope_that_clients_read(tmp_path: Path) -> None:
    async with running_node(tmp_path, **RUNNERS) as node, Buyer(node) as buyer:
        for secret in ("", "x", SECRET[:-1], f"Bearer {SECRET}", "ä"):
            answer = await beat(buyer, secret)
            assert answer.status == 401
            assert answer.json["error"]["message"] == "Wrong secret."
        for changes, status in (
            ({"app": "text-to-image/limner/shapes"}, 409),
            ({"app": "limner/shapes"}, 409),
            ({"capacity": 1000}, 400),
            ({"metadata": "x" * 1025}, 400),
            ({"label": "x" * 20_000}, 413),
        ):
            answer = await beat(buyer, **changes)
            assert answer.status == status, answer.text
            assert answer.headers["Content-Type"].startswith("application/json")
            assert answer.json["error"]["message"]
        answer = await buyer.post("/runners/heartbeat", b"[" * 10_000, {"Authorization": SECRET})
        assert answer.status == 400


async def test_no_port_of_ours_and_no_metadata_service_becomes_an_app(tmp_path: Path) -> None:
    allow = ["127.0.0.0/8", "::1/128", "169.254.0.0/16"]
    settings: dict[str, Any] = {"runners": {"secret": SECRET, "allow": allow}}
    async with running_node(tmp_path, **settings) as node, Buyer(node) as buyer:
        for url in (
            node.admin_url,
            node.admin_url.replace("127.0.0.1", "localhost") + "/status",
            node.admin_url.replace("127.0.0.1", "[::ffff:127.0.0.1]"),
            node.url,
            "http://169.254.169.254/latest/meta-data",
            "http://10.0.0.1:9000",
            "http://nobody.invalid:9000",
        ):
            answer = await beat(buyer, runner_url=url)
            assert answer.status == 400, url
            assert answer.json["error"]["message"].startswith("runner_url: ")
        # A runner that is known cannot move there either.
        own = (await beat(buyer)).json
        answer = await beat(
            buyer, own["heartbeat_secret"], runner_id=own["runner_id"], runner_url=node.admin_url
        )
        assert answer.status == 400


async def test_there_are_as_many_as_may_be(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"runners": {"secret": SECRET, "max_runners": 2}}
    async with running_node(tmp_path, **settings) as node, Buyer(node) as buyer:
        ids = {(await beat(buyer)).json["runner_id"] for _ in range(2)}
        assert len(ids) == 2
        full = await beat(buyer)
        assert full.status == 503
        assert "Retry-After" in full.headers
        assert (await beat(buyer, runner_id=ids.pop())).status == 200


async def test_without_a_secret_nobody_registers(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        assert (await beat(buyer, "")).status == 404
        status = (await buyer.get("/status", admin=True)).json
        assert status["apps_of_others"] is None


async def test_a_runner_goes_on_where_it_can_reach_the_node(tmp_path: Path) -> None:
    uri = "https://node.example.org:8936"
    listen = f"http://127.0.0.1:{free_port()}"
    settings: dict[str, Any] = {**RUNNERS, "listen": listen, "service_uri": uri, "open": True}
    async with running_node(tmp_path, **settings) as public:
        node = replace(public, url=listen)
        async with Buyer(node) as buyer:
            # As it came, from this machine; by the public address, where it came by that.
            assert (await beat(buyer)).json["orchestrator"] == node.url
            headers = {"Authorization": SECRET, "Host": "node.example.org:8936"}
            answer = await buyer.post("/runners/heartbeat", orjson.dumps(APP), headers)
            assert answer.json["orchestrator"] == uri


async def test_the_secret_comes_from_a_file_that_only_the_node_reads(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    file.chmod(0o644)
    with capture_logs() as logs:
        async with (
            running_node(tmp_path, runners={"secret_file": file}) as node,
            Buyer(node) as buyer,
        ):
            assert (await beat(buyer)).status == 200
    assert any("others can read the secret" in line["event"] for line in logs)
    file.write_text("short")
    file.chmod(stat.S_IRUSR | stat.S_IWUSR)
    with pytest.raises(ConfigError, match=r"runners.secret_file: .* must hold one line"):
        async with running_node(tmp_path, runners={"secret_file": file}):
            pass
    with pytest.raises(ConfigError, match=r"runners.secret_file: cannot read"):
        async with running_node(tmp_path, runners={"secret_file": tmp_path / "none"}):
            pass
    with pytest.raises(ConfigError, match=r"runners.allow"):
        async with running_node(tmp_path, runners={"secret": SECRET, "allow": ["10.0.0.1/33"]}):
            pass


@pytest.mark.parametrize(
    "runners",
    [{"secret": "short"}, {"secret": SECRET, "secret_file": "x"}, {"max_runners": 0}],
    ids=["short", "two", "none"],
)
async def test_what_cannot_be_ends_the_start(tmp_path: Path, runners: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="runners"):
        await settings_for(tmp_path, runners=runners)
