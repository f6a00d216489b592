"""Repeats by every way in: OpenAI's endpoint, its streams, idempotency keys, jobs that nobody waits for."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
from click.testing import CliRunner
from pybase64 import b64decode
from structlog.testing import capture_logs

from gateway.__main__ import main
from tests.gateway.repeats.shop import FEE, Reply, Shop, open_shop
from tests.gateway.test_app import BODY
from tests.gateway.waiting import until, until_async

OPENAI = "/v1/images/generations"
HIT, TOGETHER = "Limner; hit", "Limner; fwd=miss; collapsed"
NAME = "0123456789abcdef"


async def openai(shop: Shop, **fields: object) -> Reply:
    """The same images as BODY asks for, as OpenAI's clients ask for them."""
    known = {"size": "64x64", "model": "m", "width": None, "height": None}
    return await shop.ask(None, OPENAI, None, **{**known, **fields})


async def streamed(shop: Shop, **fields: object) -> tuple[str, list[dict[str, Any]]]:
    """The events of an answer that is sent piece by piece, and what its head says of the memory."""
    body = {**BODY, "size": "64x64", "model": "m", "stream": True, **fields}
    async with shop.stage.client.post(
        f"{shop.stage.gateway.url}{OPENAI}",
        json=body,
        headers={"Authorization": f"Bearer {shop.stage.key}"},
    ) as response:
        text = await response.text()
        lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
        return response.headers.get("Cache-Status", ""), [orjson.loads(line) for line in lines]


async def ended(shop: Shop, name: str = NAME) -> Any:
    told: Any = None

    async def has_ended() -> bool:
        nonlocal told
        told = await shop.job(name)
        return told.get("state") in {"done", "failed", "cancelled"}

    await until_async(has_ended)
    return told


async def test_both_endpoints_and_every_form_of_answer_share_one_memory(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        first = await shop.ask(num_images_per_prompt=2)
        await shop.until_remembered()
        whole = await openai(shop, n=2, response_format="b64_json")
        assert (whole.status, whole.cache, whole.fee) == (200, HIT, 0)
        made = await shop.images(first)
        assert [b64decode(one["b64_json"]) for one in whole.body["data"]] == made
        assert [one["seed"] for one in whole.body["data"]] == [7, 8]
        linked = await openai(shop, n=2)
        for one, png in zip(linked.body["data"], made, strict=True):
            async with shop.stage.client.get(one["url"]) as response:
                assert await response.read() == png
        head, events = await streamed(shop, n=2, partial_images=2)
        assert head == HIT
        assert [b64decode(one["b64_json"]) for one in events] == made
        assert shop.stub.runs == 1
        total, _ = await shop.books(4)
        assert (total.fee, total.repeats, total.images) == (2 * FEE, 3, 8)


async def test_streams_and_plain_requests_wait_for_one_run(tmp_path: Path) -> None:
    async with open_shop(tmp_path, cache=False) as shop:
        shop.stub.gate.clear()
        stream = asyncio.ensure_future(streamed(shop))
        await shop.until_waiting(1)
        plain = asyncio.ensure_future(shop.ask())
        other = asyncio.ensure_future(streamed(shop, partial_images=1))
        await shop.until_waiting(3)
        shop.stub.gate.set()
        (made,) = await shop.images(await plain)
        for one in (stream, other):
            _, events = await one
            assert b64decode(events[-1]["b64_json"]) == made
        assert shop.stub.runs == 1
        total, _ = await shop.books(3)
        assert total.fee == FEE


async def test_an_idempotent_request_may_be_answered_from_memory_and_repeated(
    tmp_path: Path,
) -> None:
    async with open_shop(tmp_path, price="1/2") as shop:
        first = await shop.ask()
        await shop.until_remembered()
        kept = await shop.ask(headers={"Idempotency-Key": "k"})
        again = await shop.ask(headers={"Idempotency-Key": "k"})
        assert (kept.status, kept.cache, kept.fee) == (200, HIT, FEE // 2)
        assert kept.body == again.body
        assert again.headers["Idempotency-Replayed"] == "true"
        assert (again.fee, again.cache) == (FEE // 2, HIT)
        assert await shop.images(kept) == await shop.images(first)
        total, records = await shop.books(2)
        assert (total.fee, total.repeats_fee) == (FEE + FEE // 2, FEE // 2)
        assert records[kept.headers["Limner-Job-Id"]].repeat == "hit"
        key = shop.stage.key
    async with open_shop(tmp_path, price="1/2") as shop:
        # After a restart the memory is empty, and the answer that was promised is there.
        replayed = await shop.ask(key, headers={"Idempotency-Key": "k"})
        (path,) = [one["url"].partition("/stream/")[2] for one in kept.body["images"]]
        assert path in replayed.body["images"][0]["url"]
        assert shop.stub.runs == 0


async def test_jobs_that_nobody_waits_for_share_a_run_with_those_who_wait(tmp_path: Path) -> None:
    later = {"Prefer": "respond-async", "X-Request-Id": NAME}
    async with open_shop(tmp_path) as shop:
        shop.stub.gate.clear()
        plain = asyncio.ensure_future(shop.ask())
        await shop.until_waiting(1)
        assert (await shop.ask(headers=later)).status == 202
        idempotent = asyncio.ensure_future(shop.ask(headers={"Idempotency-Key": "k"}))
        await shop.until_waiting(3)
        shop.stub.gate.set()
        told = await ended(shop)
        made = await shop.images(await plain)
        assert (told["state"], told["fee"]) == ("done", "0")
        assert await shop.images(Reply(200, told["result"], {})) == made
        assert await shop.images(await idempotent) == made
        assert ((await idempotent).cache, shop.stub.runs) == (TOGETHER, 1)
        again = {"Prefer": "respond-async", "X-Request-Id": NAME + "2"}
        await shop.until_remembered()
        assert (await shop.ask(headers=again)).status == 202
        assert (await ended(shop, NAME + "2"))["fee"] == "0"
        total, _ = await shop.books(4)
        assert (total.fee, total.repeats, shop.stub.runs) == (FEE, 3, 1)


async def test_whoever_waits_for_a_job_that_is_ended_begins_anew(tmp_path: Path) -> None:
    """A job's answer and its charge are one record: it is ended at no charge, though others wait."""
    later = {"Prefer": "respond-async", "X-Request-Id": NAME}
    async with open_shop(tmp_path) as shop:
        shop.stub.gate.clear()
        assert (await shop.ask(headers=later)).status == 202
        await shop.until_waiting(1)
        waiting = [asyncio.ensure_future(shop.ask()) for _ in range(3)]
        await shop.until_waiting(4)
        assert (await shop.job(NAME, "DELETE"))["state"] == "cancelled"
        await until(lambda: shop.stub.runs == 2)
        shop.stub.gate.set()
        assert sorted([(await one).fee for one in waiting]) == [0, 0, FEE]
        assert shop.stub.cancelled == 1
        total, _ = await shop.books(3)
        assert total.fee == FEE
        assert (await ended(shop))["state"] == "cancelled"


async def test_a_job_may_be_ended_while_it_waits_for_another(tmp_path: Path) -> None:
    later = {"Prefer": "respond-async", "X-Request-Id": NAME}
    async with open_shop(tmp_path, price="full") as shop:
        shop.stub.gate.clear()
        plain = asyncio.ensure_future(shop.ask())
        await shop.until_waiting(1)
        assert (await shop.ask(headers=later)).status == 202
        await shop.until_waiting(2)
        assert (await shop.job(NAME, "DELETE"))["state"] == "cancelled"
        shop.stub.gate.set()
        assert (await plain).fee == FEE
        total, _ = await shop.books(1)
        assert total.fee == FEE


async def test_the_wish_of_a_job_that_nobody_waits_for_is_heeded(tmp_path: Path) -> None:
    anew = {"Prefer": "respond-async", "X-Request-Id": NAME, "Cache-Control": "no-cache"}
    async with open_shop(tmp_path) as shop:
        await shop.ask()
        await shop.until_remembered()
        assert (await shop.ask(headers=anew)).status == 202
        assert (await ended(shop))["fee"] == str(FEE)
        # One connection's wish is not that of its next request.
        assert (await shop.ask()).cache == HIT
        assert shop.stub.runs == 2


async def test_a_quote_tells_what_would_be_given_again(tmp_path: Path) -> None:
    async def quote(**fields: object) -> tuple[str, str]:
        reply = await shop.ask(None, "/quote", None, **fields)
        return reply.body["cache"], reply.body["fee_wei"]

    async with open_shop(tmp_path, price="1/2") as shop:
        assert await quote() == ("miss", str(FEE))
        assert await quote(seed=None) == ("bypassed", str(FEE))
        shop.stub.gate.clear()
        asking = asyncio.ensure_future(shop.ask())
        await shop.until_waiting(1)
        assert await quote() == ("coalesced", str(FEE))
        shop.stub.gate.set()
        await asking
        await shop.until_remembered()
        assert await quote() == ("hit", str(FEE // 2))
        assert shop.stub.runs == 1
    async with open_shop(tmp_path, cache=False, coalesce=False) as shop:
        assert "cache" not in (await shop.ask(path="/quote")).body


async def test_log_metrics_and_usage_tell_of_repeats(tmp_path: Path) -> None:
    async with open_shop(tmp_path, price="1/4") as shop:
        with capture_logs() as logs:
            await shop.ask()
            await shop.until_remembered()
            for _ in range(2):
                await shop.ask()
            await shop.ask(seed=None)
            # An answer leaves before it is counted and told of.
            await until(lambda: sum(one["event"] == "request" for one in logs) == 4)
        told = [one for one in logs if one["event"] == "request"]
        assert [one["cache"] for one in told] == ["miss", "hit", "hit", "bypassed"]
        assert [one["fee_wei"] for one in told] == [str(FEE), "1024", "1024", str(FEE)]
        async with shop.stage.client.get(f"{shop.stage.gateway.admin_url}/metrics") as response:
            metrics = await response.text()
        for line in (
            'limner_gateway_cache_total{use="hit"} 2.0',
            'limner_gateway_cache_total{use="miss"} 1.0',
            'limner_gateway_cache_total{use="bypassed"} 1.0',
            f"limner_gateway_spent_wei_total {2.0 * FEE}",
            "limner_gateway_repeats_remembered 1.0",
        ):
            assert line in metrics
        assert (await shop.stage.status())["spent_wei"] == str(2 * FEE)
        await shop.books(4)
    data = ["--data-dir", str(shop.settings.data_dir)]
    said = await asyncio.to_thread(CliRunner().invoke, main, ["usage", *data])
    assert said.exit_code == 0, said.output
    assert (
        "2 of them got the images of others: charged 2048 wei where 8192 were paid before; "
        "the others cost 8192 wei"
    ) in said.output
    said = await asyncio.to_thread(
        CliRunner().invoke, main, ["usage", "--by", "model", "--json", *data]
    )
    (line,) = orjson.loads(said.output)
    assert (line["requests"], line["fee"]) == (4, "10240")
    assert (line["repeats"], line["repeats_fee"], line["repeats_worth"]) == (2, "2048", "8192")
