"""Jobs over a link: as by a direct call, for a node that nobody can call."""

import asyncio
from pathlib import Path

import pytest

from gateway.link.switchboard import Switchboard
from network.identity import checksum
from network.units import Address
from tests.gateway.test_app import serving
from tests.gateway.waiting import until, until_async
from tests.link.linked import (
    NODE_KEYS,
    URIS,
    line_to,
    link_of,
    linked_node,
    state_of,
    taking_links,
    until_linked_anew,
    until_offered,
    world,
)
from tests.node.fakes import FakeEngine

SIZE = {"width": 64, "height": 64, "num_inference_steps": 5}


def slow() -> FakeEngine:
    engine = FakeEngine()
    engine.step_seconds = 0.05
    return engine


async def test_a_job_goes_over_the_link_and_is_accounted_for_on_both_sides(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as linked:
        stage, (engine,) = linked.stage, linked.engines
        response = await stage.post(num_images_per_prompt=2)
        assert response.status == 200, await response.text()
        assert [image["seed"] for image in (await response.json())["images"]] == [7, 8]
        assert response.headers["X-Limner-Orchestrator"] == URIS[0]
        fee = 64 * 64 * 2 * 5 // 2
        assert response.headers["Limner-Fee"] == str(fee)
        assert len(engine.jobs) == 1
        (link,) = [one for one in (await stage.status())["links"] if one["linked"]]
        assert link["uri"] == URIS[0]
        url = f"{linked.nodes[0].admin_url}/status"
        async with stage.client.get(url) as answer:
            said = await answer.json()
        assert said["earned_since_start"] == str(fee)
        assert said["links"][0]["linked"] is True


async def test_many_jobs_at_once_share_the_link(tmp_path: Path) -> None:
    async with world(tmp_path, queue={"max_waiting": 64}) as linked:
        answers = await asyncio.gather(*(linked.stage.post(seed=n) for n in range(20)))
        assert [answer.status for answer in answers] == [200] * 20
        assert linked.lines[0].made == 1


async def test_a_client_that_goes_away_frees_the_node(tmp_path: Path) -> None:
    async with world(tmp_path, engine=slow) as linked:
        (engine,) = linked.engines
        asking = asyncio.ensure_future(linked.stage.post(num_inference_steps=100))
        await until(lambda: engine.active == 1)
        asking.cancel()
        await until(lambda: engine.active == 0)
        assert len(engine.cancelled) == 1
        await until_async(linked.stage.is_idle)


async def test_progress_is_told_over_the_link(tmp_path: Path) -> None:
    async with world(tmp_path, engine=slow) as linked:
        stage = linked.stage
        headers = {"Authorization": f"Bearer {stage.key}", "X-Request-Id": "0123456789abcdef"}
        asking = asyncio.ensure_future(
            stage.client.post(
                f"{stage.gateway.url}/text-to-image",
                json={"prompt": "a boat", **SIZE, "num_inference_steps": 40},
                headers=headers,
            )
        )

        async def steps() -> bool:
            url = f"{stage.gateway.url}/jobs/0123456789abcdef"
            async with stage.client.get(url, headers=headers) as answer:
                return answer.status == 200 and (await answer.json())["done_steps"] > 0

        await until_async(steps)
        asking.cancel()


@pytest.mark.parametrize("how", ["cut", "freeze"])
async def test_a_link_lost_in_mid_job_costs_the_client_nothing_but_time(
    tmp_path: Path, how: str
) -> None:
    """Both ends hear that the line is cut; that it is dead, they find out by its silence."""
    async with world(tmp_path, 2, engine=slow) as linked:
        stage, engines = linked.stage, linked.engines
        asking = asyncio.ensure_future(stage.post(num_inference_steps=30))
        await until(lambda: any(engine.active for engine in engines))
        victim = 0 if engines[0].active else 1
        line, former = linked.lines[victim], await link_of(stage, victim)
        line.is_down = True
        if how == "cut":
            line.cut()
        else:
            line.is_frozen = True
        response = await asking
        assert response.status == 200, await response.text()
        assert response.headers["X-Limner-Orchestrator"] == URIS[1 - victim]
        assert response.headers["Limner-Fee"] == str(64 * 64 * 5 // 2)
        assert (await stage.status())["spent_wei"] == str(64 * 64 * 5 // 2)
        # The one that was lost notices, too, and works for nobody.
        await until(lambda: engines[victim].active == 0)
        assert len(engines[victim].cancelled) == 1
        assert (await state_of(stage, victim))["state"] != "ready"
        assert "nothing was heard" in (await link_of(stage, victim))["last_lost"] or how == "cut"
        line.is_down = line.is_frozen = False
        await until_linked_anew(stage, former, victim)
        earned = []
        for node in linked.nodes:
            async with stage.client.get(f"{node.admin_url}/status") as answer:
                earned.append((await answer.json())["earned_since_start"])
        assert sorted(earned) == ["0", str(64 * 64 * 5 // 2)]


async def test_a_node_links_again_whenever_its_line_is_cut(tmp_path: Path) -> None:
    async with world(tmp_path) as linked:
        for _ in range(3):
            former = await link_of(linked.stage)
            linked.lines[0].cut()
            await until_linked_anew(linked.stage, former)
            assert (await linked.stage.post()).status == 200


async def test_a_node_serves_several_gateways_at_once(tmp_path: Path) -> None:
    """They need not stand among those that are let in by name; who is dialled is trusted."""
    stranger = checksum(Address(b"\x77" * 20))
    async with (
        serving(taking_links(tmp_path / "first")) as first,
        serving(taking_links(tmp_path / "second")) as second,
        line_to(first.gateway.link_url) as line,
    ):
        gateways = [
            {"url": url, "address": first.gateway.address}
            for url in (line.url, second.gateway.link_url)
        ]
        engine = FakeEngine()
        async with linked_node(
            tmp_path / "node", "", engine, gateways=gateways, allowed_gateways=[stranger]
        ):
            for stage in (first, second):
                await until_offered(stage)
                assert (await stage.post()).status == 200
            former = await link_of(first)
            line.is_down = True
            line.cut()
            assert (await second.post()).status == 200
            line.is_down = False
            await until_linked_anew(first, former)
            assert (await first.post()).status == 200


async def test_a_gateway_without_that_link_says_so(tmp_path: Path) -> None:
    async with world(tmp_path) as linked:
        missing = await state_of(linked.stage, 1)
        assert missing["state"] == "unreachable"
        assert "its node is not linked" in missing["problem"]
    with pytest.raises(ConnectionRefusedError):
        Switchboard().connect(NODE_KEYS[0].address, asyncio.Protocol)


async def test_a_node_that_stops_finishes_what_it_has_begun(tmp_path: Path) -> None:
    async with world(tmp_path, 1, engine=slow, server={"shutdown_seconds": 5}) as linked:
        asking = asyncio.ensure_future(linked.stage.post(num_inference_steps=10))
        await until(lambda: linked.engines[0].active == 1)
        stage = linked.stage
        ended = asyncio.ensure_future(asking)
        # Leaving the block stops the node first, the gateway last.
    assert (await ended).status == 200
    assert stage is linked.stage


async def test_previews_come_over_the_link(tmp_path: Path) -> None:
    """The stream of a job's news is a call of its own, beside the job's, on the same link."""
    async with world(tmp_path, engine=slow) as linked:
        stage, (engine,) = linked.stage, linked.engines
        engine.jpeg = b"\xff\xd8\xff a preview"
        headers = {"Authorization": f"Bearer {stage.key}", "X-Request-Id": "fedcba9876543210"}
        body = {"prompt": "a boat", **SIZE, "num_inference_steps": 60}
        url = stage.gateway.url
        asking = asyncio.ensure_future(
            stage.client.post(f"{url}/text-to-image", json=body, headers=headers)
        )
        await until(lambda: engine.active == 1)
        async with stage.client.get(
            f"{url}/jobs/fedcba9876543210/events", headers=headers
        ) as news:
            assert news.status == 200, await news.text()
            told = b""
            async for chunk in news.content.iter_any():
                told += chunk
                if b"event: preview" in told and b"event: progress" in told:
                    break
        assert engine.previews_made
        asking.cancel()
