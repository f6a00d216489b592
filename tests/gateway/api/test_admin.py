"""The operator's port."""

from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from gateway.api.admin import admin_router
from gateway.api.frontend import Frontend
from gateway.api.listener import listen
from tests.gateway.api.surface import Surface


async def test_metrics_count_requests_fees_and_refusals(surface: Surface) -> None:
    await surface.post()
    await surface.post()
    await surface.post(b"{}")
    await surface.post(key="bad")
    text = (await surface.metrics.render()).decode()
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["limner_gateway_requests_total", "", "200", "text-to-image"] == 2
    assert (
        samples["limner_gateway_requests_total", "422", "text-to-image", "validation_error"] == 1
    )
    assert samples["limner_gateway_requests_total", "401", "invalid_api_key", "text-to-image"] == 1
    assert samples["limner_gateway_spent_wei_total",] == 2 * 12345
    assert samples["limner_gateway_request_seconds_count", "text-to-image"] == 2
    assert samples["limner_gateway_overhead_seconds_count", "text-to-image"] == 2
    assert samples["limner_gateway_stored_images",] == 2
    assert samples["limner_gateway_in_flight",] == 0
    assert samples["limner_gateway_orchestrators", "ready"] == 1
    assert samples["process_resident_memory_bytes",] > 0


async def test_the_admin_port_tells_health_status_and_metrics(
    surface: Surface, tmp_path: Path
) -> None:
    del tmp_path
    serving = {"serving": True}
    router = admin_router(surface.metrics, lambda: dict(serving))
    async with (
        listen(
            Frontend(router, surface.metrics),
            host="127.0.0.1",
            port=0,
            max_connections=10,
            keepalive_seconds=5,
            shutdown_seconds=1,
        ) as url,
        aiohttp.ClientSession() as client,
    ):
        async with client.get(f"{url}/healthz") as response:
            assert await response.json() == {"status": "OK"}
        serving["serving"] = False
        async with client.get(f"{url}/healthz") as response:
            assert (response.status, await response.json()) == (200, {"status": "DEGRADED"})
        async with client.get(f"{url}/status") as response:
            assert await response.json() == {"serving": False}
        async with client.get(f"{url}/metrics") as response:
            assert response.content_type == "text/plain"
            assert "limner_gateway_in_flight" in await response.text()
        async with client.get(f"{url}/text-to-image") as response:
            assert response.status == 404


async def test_the_public_port_has_none_of_it(surface: Surface) -> None:
    for path in ("/metrics", "/status", "/healthz"):
        async with surface.client.get(surface.url + path) as response:
            assert response.status == 404
