"""Whether those may ask whom the operator lets."""

from pathlib import Path
from typing import Any

import pytest

from gateway.config import GatewaySettings
from gateway.doctor.access import look_at_access
from gateway.doctor.books import look_at_books
from network.findings import Finding, Verdict
from network.runtime.clock import SystemClock
from tests.gateway.access.key_service import SECRET, KeyService, serving_keys
from tests.gateway.test_app import settings_for


async def examined(settings: GatewaySettings) -> tuple[Finding, Finding]:
    tier, service = await look_at_access(settings)
    return tier, service


async def test_what_is_off_is_skipped(tmp_path: Path) -> None:
    found = await examined(settings_for(tmp_path))
    assert [one.verdict for one in found] == [Verdict.SKIP, Verdict.SKIP]


@pytest.mark.parametrize(
    ("listen", "proxies", "verdict"),
    [
        ("127.0.0.1:0", [], Verdict.WARN),
        ("127.0.0.1:0", ["127.0.0.1"], Verdict.OK),
        ("0.0.0.0:0", [], Verdict.OK),
    ],
)
async def test_a_tier_behind_a_proxy_that_nobody_named_counts_all_as_one(
    tmp_path: Path, listen: str, proxies: list[str], verdict: Verdict
) -> None:
    places: dict[str, Any] = {"listen": listen, "server": {"trusted_proxies": proxies}}
    tier, _ = await examined(settings_for(tmp_path, anonymous={"enabled": True}, **places))
    assert tier.verdict is verdict
    assert "0.001 ETH a day" in tier.detail
    assert ("trusted_proxies" in tier.advice) is (verdict is Verdict.WARN)


async def test_where_others_may_ask_no_key_is_no_fault(tmp_path: Path) -> None:
    for enabled, verdict in ((True, Verdict.OK), (False, Verdict.WARN)):
        settings = settings_for(tmp_path, anonymous={"enabled": enabled})
        found = {one.what: one for one in await look_at_books(settings, SystemClock())}
        assert found["keys"].verdict is verdict


async def test_the_service_is_asked_about_a_key_that_is_none(tmp_path: Path) -> None:
    async with serving_keys(KeyService()) as service:
        hook = {"url": service.url, "secret": SECRET, "timeout_seconds": 2}
        settings = settings_for(tmp_path, auth_webhook=hook)
        _, good = await examined(settings)
        assert good.verdict is Verdict.OK
        assert 'says "nobody has this key" of a made-up key' in good.detail
        service.behaviour = "crash"
        _, dead = await examined(settings)
        assert dead.verdict is Verdict.FAIL
        assert "it answered 500" in dead.detail
        service.behaviour = "not_json"
        _, odd = await examined(settings)
        assert (odd.verdict, odd.detail) == (Verdict.FAIL, "its answer is no JSON object")
        service.behaviour, service.knows = "answer", {}
        service.default = {"auth_id": "everybody"}
        _, lax = await examined(settings)
        assert (lax.verdict, lax.detail) == (
            Verdict.WARN,
            "lets a made-up key in, as everybody",
        )
    assert len(set(service.asked)) == 4
