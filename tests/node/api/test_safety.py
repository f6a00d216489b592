"""What gateways, strangers and the operator learn of the safety check."""

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from network.errors import ConfigError
from network.wire.headers import FEE
from network.wire.safety import REFUSED_AS_UNSAFE, Safety
from node.config.settings import NodeSettings
from node.engine.configured import safety_options
from node.engine.work import FailureKind, JobFailedError, SafetyState
from tests.node.fakes import FakeEngine
from tests.node.nodes import GATEWAY_KEY, Buyer, running_node

_SHOWN = (Safety.PASSED, Safety.FLAGGED, Safety.BLURRED, Safety.UNCHECKED)


@pytest.mark.parametrize("safety", _SHOWN)
async def test_each_image_says_whether_anybody_looked(tmp_path: Path, safety: Safety) -> None:
    engine = FakeEngine()
    engine.verdict = safety
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        images = (await buyer.ask(num_images_per_prompt=2)).json["images"]
    assert [image["safety"] for image in images] == [safety.value] * 2
    assert [image["nsfw"] for image in images] == [safety in _SHOWN[1:3]] * 2
    assert [set(image) for image in images] == [{"url", "seed", "nsfw", "safety"}] * 2


@pytest.mark.parametrize("asked", [True, False, None])
async def test_the_clients_wish_reaches_the_engine(tmp_path: Path, asked: bool | None) -> None:  # noqa: FBT001
    engine = FakeEngine()
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        await buyer.ask(safety_check=asked)
    assert engine.jobs[0].safety_check is (asked is not False)


async def test_a_refused_image_is_the_requests_end_and_costs_nothing(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.failures.append(JobFailedError(FailureKind.UNSAFE, f"{REFUSED_AS_UNSAFE}: it objects"))
    async with running_node(tmp_path, engine) as node, Buyer(node, GATEWAY_KEY) as buyer:
        with capture_logs() as lines:
            answer = await buyer.ask()
        assert answer.status == 400
        # What go-livepeer's gateways look for, so that none asks another node to draw the same.
        assert answer.text == f"text-to-image returned 400: {REFUSED_AS_UNSAFE}: it objects\n"
        assert FEE not in answer.headers
        status = (await buyer.get("/status", admin=True)).json
        assert (status["earned_since_start"], status["held"]) == ("0", "0")
        assert (
            'refusals_total{reason="unsafe"} 1.0' in (await buyer.get("/metrics", admin=True)).text
        )
    (line,) = [line for line in lines if line["event"] == "job"]
    assert (line["outcome"], line["reason"], line["charged_wei"]) == ("failed", "unsafe", "0")
    assert not [line for line in lines if line["log_level"] in {"warning", "error"}]


async def test_strangers_and_the_operator_see_who_checks(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.safety_state = SafetyState("opennsfw", "blur", "loading")
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        told = {"checker": "opennsfw", "policy": "blur", "status": "loading"}
        assert (await buyer.get("/health")).json == {"status": "OK", "safety": told}
        status = (await buyer.get("/status", admin=True)).json
        assert status["safety"] == {**told, "detail": ""}


async def test_a_checker_that_failed_is_an_error_of_the_node(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.safety_state = SafetyState("opennsfw", "flag", "failed", "/srv/x is broken")
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        health = await buyer.get("/health")
        assert health.json["status"] == "ERROR"
        assert "/srv" not in health.text
        assert (await buyer.get("/healthz", admin=True)).status == 503
        status = (await buyer.get("/status", admin=True)).json
        assert status["safety"]["detail"] == "/srv/x is broken"


@pytest.mark.parametrize(("checker", "warns"), [("none", True), ("opennsfw", False)])
async def test_a_node_without_a_checker_says_so_at_its_start(
    tmp_path: Path,
    checker: str,
    warns: bool,  # noqa: FBT001
) -> None:
    with capture_logs() as lines:
        async with running_node(tmp_path, safety={"checker": checker}):
            pass
    warnings = [line["event"] for line in lines if line["log_level"] == "warning"]
    assert any("unchecked" in warning for warning in warnings) is warns


async def test_a_checker_that_is_not_there_ends_the_start_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^safety\.checker: .*no folder of an image classifier"):
        async with running_node(tmp_path, safety={"checker": str(tmp_path / "nowhere")}):
            pass


@pytest.mark.parametrize(
    "values",
    [
        {"policy": "delete"},
        {"threshold": 1.1},
        {"threshold": -0.1},
        {"threshold": float("nan")},
        {"checker": ""},
        {"device": "tpu"},
        {"unsafe_labels": [""]},
        {"cheker": "none"},
    ],
)
def test_wrong_settings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="safety"):
        NodeSettings.model_validate({"safety": values})


def test_settings_reach_the_engine_as_they_are() -> None:
    values = {
        "checker": "~/models/nsfw",
        "policy": "refuse",
        "threshold": 0.7,
        "device": "cuda:1",
        "unsafe_labels": ["bad"],
        "always": True,
    }
    options = safety_options(NodeSettings.model_validate({"safety": values}).safety)
    assert options.checker == str(Path("~/models/nsfw").expanduser())
    assert (options.policy, options.threshold, options.device) == ("refuse", 0.7, "cuda:1")
    assert (options.unsafe_labels, options.always) == (("bad",), True)
    assert safety_options(NodeSettings().safety).checker == "opennsfw"
