"""GET /discover-orchestrators: who is listed, and who is not."""

from dataclasses import replace
from fractions import Fraction

from gateway.orchestrators.offer import ModelOffer, Offer
from gateway.orchestrators.peer import OrchestratorState
from gateway.signer.desk import PriceCaps
from network.capabilities import job_capabilities
from network.units import Address, ModelId
from tests.gateway.signer.signing_desk import NOW, signing_desk


def state(uri: str, **prices: Fraction | None) -> OrchestratorState:
    offer = Offer(
        uri=uri,
        transcoder=uri,
        address=Address(b"\xaa" * 20),
        models={
            ModelId(name): ModelOffer(warm=True, free=1, price=price)
            for name, price in prices.items()
        },
        capabilities=job_capabilities(ModelId("m"), "0.9.1"),
        auth_token=None,
        version="0.9.1",
        refreshed_at=NOW,
        round_trip=0.01,
    )
    return OrchestratorState(uri, offer, "", 1.0, 0, 0, 0.0, "")


CHEAP = state("https://cheap:8936", a=Fraction(1), b=Fraction(2))
DEAR = state("https://dear:8936", a=Fraction(100), c=Fraction(3))
NOBODY = OrchestratorState("https://silent:8936", None, "no connection", None, 0, 0, 0.0, "")


async def listed(
    states: list[OrchestratorState], query: str = "", cap: Fraction | None = None
) -> tuple[int, dict[str, list[str]]]:
    async with signing_desk(states=states, caps=PriceCaps(per_pixel=cap)) as desk:
        path = f"/discover-orchestrators{query}"
        async with desk.client.get(desk.url + path) as response:
            body = await response.json()
            if response.status != 200:
                assert list(body) == ["error"]
                return response.status, {}
            assert all(entry["score"] == 1 and entry["runners"] == [] for entry in body)
            return 200, {entry["address"]: entry["capabilities"] for entry in body}


async def test_every_priced_model_is_a_capability() -> None:
    assert await listed([CHEAP, DEAR, NOBODY]) == (
        200,
        {
            "https://cheap:8936": ["text-to-image/a", "text-to-image/b"],
            "https://dear:8936": ["text-to-image/a", "text-to-image/c"],
        },
    )


async def test_any_of_the_capabilities_asked_for_will_do() -> None:
    found = await listed([CHEAP, DEAR], "?caps=text-to-image/b&caps=text-to-image/nobody")
    assert list(found[1]) == ["https://cheap:8936"]
    found = await listed([CHEAP, DEAR], "?caps=text-to-image/b&caps=text-to-image/c")
    assert list(found[1]) == ["https://cheap:8936", "https://dear:8936"]
    assert await listed([CHEAP, DEAR], "?caps=text-to-image/nobody") == (200, {})


async def test_what_costs_more_than_the_signer_pays_is_not_listed() -> None:
    assert await listed([CHEAP, DEAR], cap=Fraction(2)) == (
        200,
        {"https://cheap:8936": ["text-to-image/a", "text-to-image/b"]},
    )


async def test_nobody_to_buy_from_is_unavailable() -> None:
    assert CHEAP.offer is not None
    for states in (
        [],
        [NOBODY],
        [replace(CHEAP, age=61.0)],
        [replace(CHEAP, passed_over="on the blocklist")],
        [state("https://free:8936", a=None)],
        [state("https://zero:8936", a=Fraction(0))],
        [replace(CHEAP, offer=replace(CHEAP.offer, problem="it takes no work"))],
        [replace(CHEAP, offer=replace(CHEAP.offer, address=None))],
    ):
        assert (await listed(states))[0] == 503
