from pathlib import Path

import orjson

from tests.node.api.test_runners import RUNNERS, beat
from tests.node.nodes import Buyer, running_node
from tests.node.test_command import limner, run


async def test_the_command_lists_who_is_there_and_why_somebody_is_not_sold(tmp_path: Path) -> None:
    async with running_node(tmp_path, **RUNNERS) as node, Buyer(node) as buyer:
        await beat(buyer, runner_id="one")
        await beat(buyer, runner_id="two", status="loading")
        await beat(buyer, "wrong")
        admin = node.admin_url.removeprefix("http://")
        said = await run("runners", "--admin", admin)
        assert said.returncode == 0, said.stderr
        one, two = (line.split() for line in said.stdout.splitlines() if "acme/upscaler" in line)
        assert one[:3] == ["acme/upscaler", "one", "yes"]
        assert two[:3] == ["acme/upscaler", "two", "no"]
        assert "refused heartbeats: wrong_secret 1" in said.stdout
        told = orjson.loads((await run("runners", "--admin", admin, "--json")).stdout)
        assert [line["id"] for line in told["runners"]] == ["one", "two"]


async def test_without_a_secret_it_says_what_to_do(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        said = await run("runners", "--admin", node.admin_url.removeprefix("http://"))
        assert said.returncode == 1
        assert "runners.secret_file" in said.stderr


def test_without_a_node_it_says_so() -> None:
    said = limner("runners", "--admin", "127.0.0.1:9")
    assert said.exit_code == 1
    assert "is it running?" in said.output
