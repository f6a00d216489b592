"""Apps of others, sold by a running node: free off-chain, for tickets on a chain."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from aiohttp import web

from network.identity import checksum
from network.wire.headers import FEE, JOB_ID, PAYER_ADDRESS
from node.apps.ours import route_of
from tests.devnet import Devnet
from tests.node.api.test_runners import RUNNERS, SECRET, beat
from tests.node.apps.callers import Terms, headers_for, listed, problem
from tests.node.apps.runner_apps import app_of
from tests.node.fakes import MODEL
from tests.node.nodes import GATEWAY_KEY, Answer, Buyer, eventually, running_node
from tests.node.payments.paid_nodes import PayingBuyer, funded_chain, paid_node
from tests.node.payments.test_rates import place_on

#: What a call costs in wei, and what the app asks for it in dollars, at 3000 an ETH.
COST = 10_240
PRICED: dict[str, Any] = {"price_info": {"price": "3.072e-11", "unit": "fixed"}}
AT_3000: dict[str, Any] = {**RUNNERS, "usd_per_eth": "3000"}


async def upscale(request: web.Request) -> web.Response:
    return web.json_response({"path": request.path, "size": len(await request.read())})


async def call(buyer: Buyer, route: str, headers: dict[str, str] | None = None) -> Answer:
    sent = {"Content-Type": "application/json", **(headers or {})}
    if buyer.signer is not None:
        sent[PAYER_ADDRESS] = checksum(GATEWAY_KEY.address)
    return await buyer.post(f"/apps/{route}/app/v1", b'{"scale": 2}', sent)


async def test_off_chain_it_is_listed_beside_our_models_and_called_free(tmp_path: Path) -> None:
    async with (
        running_node(tmp_path, **RUNNERS) as node,
        Buyer(node) as buyer,
        app_of(upscale) as url,
    ):
        hourly = {"unit": "hour", "price": 1.5}
        told = (await beat(buyer, runner_url=url, price_info=hourly, metadata="x")).json
        route = told["runner_id"]
        ours, other = await listed(buyer)
        assert ours["url"] == f"{node.url}/apps/{route_of(MODEL)}/app"
        assert other == {
            "url": f"{node.url}/apps/{route}/app",
            "app": "acme/upscaler",
            "mode": "single-shot",
            "version": "",
            "metadata": "x",
            "capacity": 2,
            "capacity_used": 0,
            "capacity_available": 2,
        }
        answer = await call(buyer, route)
        assert answer.json == {"path": "/base/v1", "size": 12}
        assert answer.headers["Server"] == "limner-node"
        receipt = (await buyer.get(f"/jobs/{answer.headers[JOB_ID]}/receipt")).json
        assert (receipt["state"], receipt["charged"]) == ("delivered", "0")
        metrics = (await buyer.get("/metrics", admin=True)).text
        assert 'jobs_total{model="acme/upscaler",outcome="delivered"} 1.0' in metrics
        (line,) = (await buyer.get("/status", admin=True)).json["apps_of_others"]["runners"]
        assert line["sold"] is True
        assert line["calls"] == {"delivered": 1}
        assert problem(await call(buyer, "nobody"))[0] == 404


async def test_off_chain_what_a_call_is_worth_is_written_down(tmp_path: Path) -> None:
    async with (
        running_node(tmp_path, **AT_3000) as node,
        Buyer(node) as buyer,
        app_of(upscale) as url,
    ):
        route = (await beat(buyer, runner_url=url, **PRICED)).json["runner_id"]
        answer = await call(buyer, route)
        assert answer.headers[FEE] == str(COST)
        assert (await buyer.get("/status", admin=True)).json["earned_since_start"] == str(COST)


async def test_on_a_chain_a_call_is_quoted_paid_and_charged_to_the_wei(tmp_path: Path) -> None:
    async with (
        paid_node(tmp_path, funded_chain(), **AT_3000) as node,
        PayingBuyer(node) as buyer,
        app_of(upscale) as url,
    ):
        route = (await beat(buyer, runner_url=url, **PRICED)).json["runner_id"]
        (other,) = [one for one in await listed(buyer) if one["app"] == "acme/upscaler"]
        assert other["price_info"] == {"price": COST, "currency": "wei", "unit": "fixed"}
        terms = Terms.of(await call(buyer, route))
        assert terms.fee == COST
        assert terms.told["payment_url"].startswith(f"{node.url}/apps/{route}/session/")
        answer = await call(buyer, route, headers_for(buyer, terms))
        assert answer.json == {"path": "/base/v1", "size": 12}
        assert answer.headers[JOB_ID] == terms.session_id
        receipt = (await buyer.receipt(terms.session_id)).json
        assert (receipt["state"], receipt["charged"]) == ("delivered", str(COST))
        assert COST <= Fraction(receipt["credited"]) < COST + 1
        # The same payment is good for nothing more.
        again = await call(buyer, route, headers_for(buyer, terms))
        assert again.status in {400, 409}
        status = (await buyer.get("/status", admin=True)).json
        assert (status["earned_since_start"], status["held"]) == (str(COST), "0")


async def test_what_a_failed_call_brought_pays_for_the_next(tmp_path: Path) -> None:
    async with (
        paid_node(tmp_path, funded_chain(), **AT_3000) as node,
        PayingBuyer(node) as buyer,
        app_of(upscale) as url,
    ):
        gone = (await beat(buyer, runner_id="gone", **PRICED)).json["runner_id"]
        good = (await beat(buyer, runner_id="good", runner_url=url, **PRICED)).json["runner_id"]
        terms = Terms.of(await call(buyer, gone))
        status, message = problem(await call(buyer, gone, headers_for(buyer, terms)))
        assert (status, message) == (502, "the app failed: unreachable")
        receipt = (await buyer.receipt(terms.session_id)).json
        assert (receipt["state"], receipt["charged"]) == ("failed", "0")
        balance = Fraction(receipt["credited"])
        terms = Terms.of(await call(buyer, good))
        assert (await call(buyer, good, headers_for(buyer, terms))).status == 200
        assert balance >= COST


async def test_on_a_chain_what_tickets_cannot_pay_is_not_listed_and_the_reason_told(
    tmp_path: Path,
) -> None:
    async with paid_node(tmp_path, funded_chain(), **AT_3000) as node, Buyer(node) as buyer:
        for name, told, why in (
            ("dear", {"price_info": {"price": 1, "unit": "fixed"}}, "cannot be paid"),
            ("hour", {"price_info": {"price": 1, "unit": "hour"}}, 'priced by "hour"'),
            ("session", {**PRICED, "mode": "persistent"}, "sessions can be had only"),
        ):
            assert (await beat(buyer, runner_id=name, **told)).status == 200
            lines = (await buyer.get("/status", admin=True)).json["apps_of_others"]["runners"]
            (line,) = [line for line in lines if line["id"] == name]
            assert line["sold"] is False
            assert why in line["why_not"]
            assert (await call(buyer, name)).status == 404
        assert len(await listed(buyer)) == 1


async def test_without_a_rate_nothing_in_dollars_is_sold(tmp_path: Path) -> None:
    async with paid_node(tmp_path, funded_chain(), **RUNNERS) as node, Buyer(node) as buyer:
        assert (await beat(buyer, **PRICED)).status == 200
        (line,) = (await buyer.get("/status", admin=True)).json["apps_of_others"]["runners"]
        assert "usd_per_eth" in line["why_not"]


async def test_no_runner_takes_a_models_place(tmp_path: Path) -> None:
    async with running_node(tmp_path, **RUNNERS) as node, Buyer(node) as buyer:
        assert (await beat(buyer, runner_id=route_of(MODEL))).status == 409


async def test_a_price_feed_tells_what_an_app_costs_and_a_rate_that_moves_moves_it(
    devnet: Devnet, tmp_path: Path
) -> None:
    place = await place_on(devnet, tmp_path, 3000)
    model = place.settings.models[0].model_copy(update={"price": Fraction(5, 2)})
    runners = place.settings.runners.model_copy(update={"secret": SECRET})
    settings = place.settings.model_copy(update={"models": (model,), "runners": runners})
    async with replace(place, settings=settings).open() as market:
        buyer = market.buyer
        assert (await beat(buyer, **PRICED)).status == 200
        for usd_per_eth, cost in ((3000, COST), (2985, COST), (1500, 2 * COST)):
            await market.move(usd_per_eth)

            async def costs(wanted: int = cost) -> bool:
                (other,) = [one for one in await listed(buyer) if one["app"] == "acme/upscaler"]
                return bool(other["price_info"]["price"] == wanted)

            await eventually(costs, 30)
