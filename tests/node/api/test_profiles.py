"""Requests as the official clients send them, at a node whose model has a profile."""

import json
from pathlib import Path
from typing import Any

import pytest

from node.app import open_node
from tests.node.fakes import MODEL, FakeEngine
from tests.node.nodes import GATEWAY_KEY, Answer, Buyer, eventually, running_node, settings_for
from tests.node.test_command import run

#: The body of a client that was told nothing but a prompt.
UNASKED: dict[str, Any] = {
    "width": 1024,
    "height": 576,
    "num_inference_steps": 50,
    "guidance_scale": 7.5,
    "seed": 7,
}
PROFILE = {"steps": 8, "guidance": 5.0}


def model(folder: Path, **profile: Any) -> list[dict[str, Any]]:
    return [{"id": MODEL, "path": folder / "model", "price": "5/2", "profile": profile}]


def used(answer: Answer) -> tuple[str, str]:
    assert answer.status == 200, answer.text
    return answer.headers["Limner-Steps"], answer.headers["Limner-Guidance"]


async def test_unchosen_values_are_the_profiles_and_chosen_ones_the_clients(
    tmp_path: Path,
) -> None:
    engine = FakeEngine()
    models = model(tmp_path, **PROFILE)
    async with (
        running_node(tmp_path, engine, models=models) as node,
        Buyer(node, GATEWAY_KEY) as buyer,
    ):
        plain = await buyer.ask(**UNASKED)
        assert used(plain) == ("8", "5")
        told = "by the model's profile: num_inference_steps 8 for 50 and guidance_scale 5 for 7.5"
        assert plain.headers["Limner-Warnings"] == told
        assert used(await buyer.ask(**{**UNASKED, "num_inference_steps": 20})) == ("20", "5")
        assert used(await buyer.ask(**{**UNASKED, "guidance_scale": 1.0})) == ("8", "1")
        chosen = await buyer.ask(num_inference_steps=20, guidance_scale=0.5)
        assert used(chosen) == ("20", "0.5")
        assert "Limner-Warnings" not in chosen.headers
        jobs = json.loads((await run("jobs", "--data-dir", tmp_path / "data", "--json")).stdout)
    assert [job["steps"] for job in reversed(jobs)] == [8, 20, 8, 20]
    assert {(job.width, job.height) for job in engine.jobs[:3]} == {(1024, 576)}
    # Pixels are paid for, whatever is done with them.
    assert plain.headers["Limner-Fee"] == str(1024 * 576 * 5 // 2)


@pytest.mark.parametrize(
    ("policy", "fixed", "expected"),
    [("as-sent", ["steps"], ("50", "7.5")), ("profile", ["steps"], ("8", "7.5"))],
)
async def test_the_operator_decides_whether_and_which_values_are_replaced(
    tmp_path: Path, policy: str, fixed: list[str], expected: tuple[str, str]
) -> None:
    models = model(tmp_path, steps=8, fixed=fixed)
    async with (
        running_node(tmp_path, models=models, defaults_policy=policy) as node,
        Buyer(node, GATEWAY_KEY) as buyer,
    ):
        assert used(await buyer.ask(**UNASKED)) == expected
        most = await buyer.ask(num_inference_steps=31, guidance_scale=7.5)
        assert used(most)[0] == ("31" if policy == "as-sent" else "8")


async def test_bounds_are_those_of_what_was_sent(tmp_path: Path) -> None:
    async with (
        running_node(tmp_path, models=model(tmp_path, **PROFILE, fixed=["steps"])) as node,
        Buyer(node, GATEWAY_KEY) as buyer,
    ):
        assert (await buyer.ask(num_inference_steps=101)).status == 400


async def test_the_clients_fixed_defaults_give_the_profiles_image_to_the_byte(
    tmp_path: Path,
) -> None:
    """The built-in model in a real worker: 8 steps by profile are 8 steps by request."""
    settings = await settings_for(
        tmp_path,
        models=[{"id": MODEL, "price": "5/2", "profile": PROFILE}],
        engine={"device": "cpu", "threads": 1},
        server={"shutdown_seconds": 5.0},
    )
    async with open_node(settings) as node, Buyer(node, GATEWAY_KEY) as buyer:

        async def is_ready() -> bool:
            return bool((await buyer.get("/status", admin=True)).json["ready"])

        await eventually(is_ready, seconds=90)
        small = {**UNASKED, "width": 128, "height": 96}
        unasked = await buyer.ask(**small)
        small |= {"guidance_scale": 5.0}
        explicit = await buyer.ask(**small | {"num_inference_steps": 8})
        other = await buyer.ask(**small | {"num_inference_steps": 9})
        chosen = await buyer.ask(num_inference_steps=20, guidance_scale=7.0)
    assert used(unasked) == used(explicit) == ("8", "5")
    assert unasked.body == explicit.body
    assert unasked.body != other.body
    assert used(chosen) == ("20", "7")
