"""What an operator may write under `[repeats]`, and images in a bucket."""

from fractions import Fraction
from pathlib import Path

import pytest

from gateway.config import GatewaySettings
from network.errors import ConfigError
from network.runtime.settings import load
from tests.gateway.repeats.shop import GatedOrchestrator, Shop
from tests.gateway.storage.s3_server import Gate
from tests.gateway.stub_orchestrator import running
from tests.gateway.test_app import serving
from tests.gateway.test_bucket_app import gate, s3_port, settings_with

__all__ = ["gate", "s3_port"]

PREFIX = "LIMNER_GATEWAY__"


def priced(written: str) -> Fraction:
    """By a file."""
    file = f"[repeats]\nprice = {written}\n"
    return loaded(file).repeats.price


def loaded(text: str, environment: dict[str, str] | None = None) -> GatewaySettings:
    file = Path("gateway.toml")
    file.write_text(text)
    return load(GatewaySettings, file, PREFIX, {}, environment or {})


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("written", "share"),
    [
        ('"free"', Fraction(0)),
        ('"full"', Fraction(1)),
        ('"2/3"', Fraction(2, 3)),
        ("0.1", Fraction(1, 10)),
        ('"0.1"', Fraction(1, 10)),
        ("0", Fraction(0)),
        ("1", Fraction(1)),
    ],
)
def test_a_price_is_exactly_what_is_written(written: str, share: Fraction) -> None:
    assert priced(written) == share


@pytest.mark.parametrize("written", ['"half"', '"1/0"', "-0.1", "1.01", '"5 wei"', "true", "nan"])
def test_what_is_no_part_of_a_fee_is_a_startup_error(written: str) -> None:
    with pytest.raises(ConfigError, match=r"repeats\.price"):
        priced(written)


def test_the_environment_may_say_it_too() -> None:
    said = {f"{PREFIX}REPEATS__CACHE": "true", f"{PREFIX}REPEATS__PRICE": "1/3"}
    repeats = loaded("", said).repeats
    assert (repeats.cache, repeats.price) == (True, Fraction(1, 3))


async def test_answers_are_remembered_with_their_images_in_a_bucket(
    gate: Gate, tmp_path: Path
) -> None:
    async with running(GatedOrchestrator()) as stub:
        assert isinstance(stub, GatedOrchestrator)
        plain = settings_with(gate, tmp_path, stub.uri)
        settings = GatewaySettings.model_validate(
            {**plain.model_dump(exclude_unset=True), "repeats": {"cache": True}}
        )
        async with serving(settings) as stage:
            shop = Shop(stage, stub, settings)
            first = await shop.ask()
            await shop.until_remembered()
            again = await shop.ask()
            assert again.cache == "Limner; hit"
            assert await shop.images(again) == await shop.images(first)
            assert stub.runs == 1


async def test_what_only_a_bucket_can_serve_cannot_be_given_again(
    gate: Gate, tmp_path: Path
) -> None:
    plain = settings_with(gate, tmp_path, "http://127.0.0.1:9", urls="presigned")
    settings = GatewaySettings.model_validate(
        {**plain.model_dump(exclude_unset=True), "repeats": {"cache": True}}
    )
    with pytest.raises(ConfigError, match=r'repeats\.cache.*set images\.urls to "proxied"'):
        async with serving(settings):
            pass
