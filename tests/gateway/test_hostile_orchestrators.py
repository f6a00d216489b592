"""The whole gateway among orchestrators that attack it: each costs its standing, and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.storage.names import parse_path
from gateway.storage.records import head_of
from tests.gateway.hostile_answers import CLEANED, FAULTS, PLAIN, draws
from tests.gateway.hostile_orchestrator import Canary, Hostile, attacking, listening
from tests.gateway.stored_images import segments, stored_images
from tests.gateway.stub_orchestrator import StubModel
from tests.gateway.test_app import Stage, serving, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: What the gateway may take of one attack: an answer's largest body, a head, and what kernels hold.
MOST_TAKEN = 2 * 2**20
HONEST_PRICE = 9


@dataclass(frozen=True)
class Outcome:
    """What came of a request whose cheapest orchestrator was an attacker."""

    status: int
    orchestrator: str
    fee: str
    told: dict[str, Any]
    #: The image's file, and the head that it came with.
    image: bytes
    media: str
    #: Of the attacker: bytes it could send, and what the gateway thinks of it.
    taken: int
    failures: int
    last_fault: str


@dataclass(frozen=True)
class Aftermath:
    outcomes: dict[str, Outcome]
    honest: str
    hostile: dict[str, str]
    canary: Canary
    folder: Path
    stored: int


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def aftermath(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Aftermath]:
    """Every attack at once, on one gateway."""
    folder, canary = tmp_path_factory.mktemp("gateway"), Canary()
    attacks = FAULTS | {name: draws(image) for name, image in CLEANED.items()}
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        canary.url = await enter(listening(canary.serve))
        hostiles = [
            Hostile(f"m{number}", attack, canary.url)
            for number, attack in enumerate(attacks.values())
        ]
        honest = Hostile("", draws(PLAIN, "Connection: close"))
        honest.stub.models = {one.model: StubModel(Fraction(HONEST_PRICE)) for one in hostiles}
        honest.stub.capacity = 1000
        await enter(attacking([*hostiles, honest]))
        settings = settings_for(
            folder,
            honest.stub.uri,
            *(one.stub.uri for one in hostiles),
            default_model="m0",
            # So many failures at once would else be taken for an outage.
            routing={"refresh_seconds": 60, "attempt_seconds": 2, "retry_spare": 1000},
            images={"check_pixels": True},
        )
        stage = await enter(serving(settings))
        outcomes = await asyncio.gather(*(_asked(stage, one) for one in hostiles))
        names = list(attacks)
        status = await stage.status()
        yield Aftermath(
            dict(zip(names, outcomes, strict=True)),
            honest.stub.uri,
            {name: one.stub.uri for name, one in zip(names, hostiles, strict=True)},
            canary,
            folder,
            status["images"]["count"],
        )


async def _asked(stage: Stage, hostile: Hostile) -> Outcome:
    response = await stage.post(model_id=hostile.model)
    told: dict[str, Any] = await response.json()
    image, media = b"", ""
    if response.status == 200:
        async with stage.client.get(told["images"][0]["url"]) as picture:
            image, media = await picture.read(), picture.headers["Content-Type"]
    states = {one["uri"]: one for one in (await stage.status())["orchestrators"]}
    state = states[hostile.stub.uri]
    return Outcome(
        response.status,
        response.headers.get("X-Limner-Orchestrator", ""),
        response.headers.get("Limner-Fee", ""),
        told.get("error", {}),
        image,
        media,
        hostile.sent,
        state["failures"],
        state["last_fault"],
    )


@pytest.mark.parametrize("name", FAULTS)
async def test_an_attack_costs_its_standing_and_another_delivers(
    aftermath: Aftermath, name: str
) -> None:
    seen = aftermath.outcomes[name]
    # Of its many models only the first are asked for one by one; the others' price is rounded up.
    assert seen.status == 200, seen.told
    assert int(seen.fee) in {64 * 64 * HONEST_PRICE, 64 * 64 * (HONEST_PRICE + 1)}
    assert seen.orchestrator == aftermath.honest
    assert (seen.image, seen.media) == (PLAIN, "image/png")
    assert seen.failures >= 1, "wrong images weigh more than broken connections"
    assert seen.last_fault
    assert seen.last_fault.isprintable()
    assert seen.taken < MOST_TAKEN


@pytest.mark.parametrize("name", CLEANED)
async def test_what_is_hidden_in_an_image_stays_with_the_gateway(
    aftermath: Aftermath, name: str
) -> None:
    seen = aftermath.outcomes[name]
    assert (seen.status, seen.failures) == (200, 0)
    assert seen.orchestrator == aftermath.hostile[name]
    assert (seen.image, seen.media) == (PLAIN, "image/png")


async def test_no_other_host_was_contacted(aftermath: Aftermath) -> None:
    assert aftermath.canary.visits == 0


async def test_nothing_was_written_but_the_images_that_were_delivered(
    aftermath: Aftermath,
) -> None:
    files = [file for file in aftermath.folder.rglob("*") if file.is_file()]
    kept = segments(aftermath.folder / "data" / "images")
    images = stored_images(aftermath.folder)
    assert len(images) == aftermath.stored == len(aftermath.outcomes)
    assert all(image == PLAIN for image in images.values())
    names = [parse_path(f"/stream/{path}") for path in images]
    records = [len(head_of(name, 0.0, len(PLAIN))) + len(PLAIN) for name in names if name]
    assert sum(file.stat().st_size for file in kept) == sum(records)
    others = {file.name for file in files if file not in kept}
    assert others <= {
        *("gateway.sqlite3", "gateway.sqlite3-wal", "gateway.sqlite3-shm", "journal.ahead"),
        *("keystore.json", "keystore.passphrase", "webhook.secret"),
    }
