import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from network.errors import ConfigError
from network.identity import parse_address
from network.prices import CurrencyPrice, Price, fixed_usd, in_wei
from node.config.ai_models import ModelList, read_ai_models
from node.config.catalogue import BUILTIN_FOLDER, BUILTIN_MODEL, catalogue
from node.config.settings import NodeSettings

EXAMPLE = Path(__file__).parents[3] / "configs" / "aiModels.example.json"
GATEWAY = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"
ENTRY = {"pipeline": "text-to-image", "model_id": "a/b", "warm": True, "price_per_unit": 7}


def read(folder: Path, *entries: object) -> ModelList:
    path = folder / "aiModels.json"
    path.write_text(json.dumps(entries))
    return read_ai_models(path)


def wei(price: Price | None, usd_per_eth: int) -> Fraction:
    assert price is not None
    return in_wei(price, fixed_usd(Fraction(usd_per_eth)).current)


def test_the_example_is_read() -> None:
    models = read_ai_models(EXAMPLE).models
    assert [model.model_id for model in models][:1] == ["limner/shapes"]
    # 1.9073484e-08 USD at 4000 USD per ETH
    assert wei(models[1].price, 4000) == Fraction("4768371")
    assert models[2].price == 4_768_371


@pytest.mark.parametrize(
    ("fields", "price"),
    [
        ({"price_per_unit": 4768371}, Fraction(4768371)),
        ({"price_per_unit": "4768371"}, Fraction(4768371)),
        ({"price_per_unit": 0}, Fraction(0)),
        ({"price_per_unit": 0.1}, Fraction(1, 10)),
        ({"price_per_unit": 7, "pixels_per_unit": 2}, Fraction(7, 2)),
        ({"price_per_unit": "7wei", "pixels_per_unit": "2"}, Fraction(7, 2)),
        ({"price_per_unit": "2e-18", "currency": "ETH"}, Fraction(2)),
        ({"price_per_unit": "2e-18ETH"}, Fraction(2)),
        ({"price_per_unit": "0.5e-12USD"}, Fraction(10**6, 2 * 3000)),
        ({"price_per_unit": 0.5e-12, "currency": "USD"}, Fraction(10**6, 2 * 3000)),
    ],
)
def test_prices_are_read_exactly(tmp_path: Path, fields: dict[str, Any], price: Fraction) -> None:
    (model,) = read(tmp_path, {**ENTRY, **fields}).models
    assert wei(model.price, 3000) == price


def test_other_currencies_wait_for_a_feed_of_theirs(tmp_path: Path) -> None:
    (model,) = read(tmp_path, {**ENTRY, "price_per_unit": "7EUR", "pixels_per_unit": 2}).models
    assert model.price == CurrencyPrice(Fraction(7, 2), "EUR")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"currency": "7"}, "is no currency"),
        ({"price_per_unit": True}, "price_per_unit"),
        ({"price_per_unit": "1", "currency": "ETH", "pixels_per_unit": 10**19}, "positive"),
        ({"price_per_unit": "100ETH"}, "64 bits"),
        ({"price_per_unit": "much"}, "not a price"),
        ({"price_per_unit": -1}, "not a price"),
        ({"pixels_per_unit": 0}, "positive whole number"),
        ({"pixels_per_unit": "2.5"}, "positive whole number"),
        ({"url": "http://localhost:8000"}, "external containers"),
        ({"capacity": 0}, "capacity"),
        ({"model_id": ""}, "model_id"),
        ({"gateway": "0x12"}, "not an address"),
        ({"warm": "perhaps"}, "warm"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        read(tmp_path, {**ENTRY, **fields})
    assert caught.value.key.startswith("ai_models[0]")


def test_equal_entries_add_capacity_and_contradictions_are_told(tmp_path: Path) -> None:
    (model,) = read(tmp_path, ENTRY, {**ENTRY, "capacity": 3}).models
    assert model.capacity == 4
    with pytest.raises(ConfigError, match="as warm and as cold"):
        read(tmp_path, ENTRY, {**ENTRY, "warm": False})
    with pytest.raises(ConfigError, match="two different prices"):
        read(tmp_path, ENTRY, {**ENTRY, "price_per_unit": 8})


def test_a_gateway_may_have_its_own_price(tmp_path: Path) -> None:
    (model,) = read(tmp_path, ENTRY, {**ENTRY, "price_per_unit": 3, "gateway": GATEWAY}).models
    assert model.price == 7
    assert model.capacity == 1
    assert model.payer_prices == ((parse_address(GATEWAY), Fraction(3)),)


def test_other_pipelines_are_left_out_and_named(tmp_path: Path) -> None:
    found = read(tmp_path, ENTRY, {**ENTRY, "pipeline": "upscale"})
    assert found.skipped == ("upscale",)
    assert len(found.models) == 1


@pytest.mark.parametrize("text", ["", "{}", "[1]", "[" * 100_000, "\xff"])
def test_what_is_no_list_of_models_is_an_error_and_no_crash(tmp_path: Path, text: str) -> None:
    path = tmp_path / "aiModels.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError):
        read_ai_models(path)


def test_the_list_may_stand_where_its_file_would() -> None:
    found = read_ai_models(Path("text-to-image:a/b:true,upscale:c/d:1,text-to-image:e:F"))
    assert [(model.model_id, model.warm) for model in found.models] == [
        ("a/b", True),
        ("e", False),
    ]
    assert found.skipped == ("upscale",)


@pytest.mark.parametrize(
    "text", ["pipeline1:model1", "a:b:perhaps", "a:b:true,", ":::::", "a:b:" * 4000]
)
def test_a_list_that_lacks_a_part_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="<pipeline>:<model_id>:<warm>"):
        read_ai_models(Path(text))


def test_flags_of_another_engine_are_told_and_left_out(tmp_path: Path) -> None:
    found = read(tmp_path, {**ENTRY, "optimization_flags": {"SFAST": True}, "token": "x"})
    assert found.models[0].model_id == "a/b"
    assert "SFAST of a/b" in found.notes[0]


def model_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "model_index.json").write_text("{}")
    return path


def test_models_are_found_in_plain_folders_and_in_livepeers_cache_layout(tmp_path: Path) -> None:
    plain = model_folder(tmp_path / "a" / "b")
    cache = tmp_path / "models--c--d"
    cached = model_folder(cache / "snapshots" / "abc")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc\n")
    settings = NodeSettings.model_validate(
        {"models_dir": tmp_path, "models": [{"id": "a/b"}, {"id": "c/d", "price": "7"}]}
    )
    found = catalogue(settings).models
    assert [model.path for model in found] == [plain, cached]
    assert [model.price for model in found] == [settings.price, 7]


def test_a_missing_model_says_how_to_get_it(tmp_path: Path) -> None:
    settings = NodeSettings.model_validate({"models_dir": tmp_path, "models": [{"id": "a/b"}]})
    with pytest.raises(ConfigError, match="limner-node models pull a/b"):
        catalogue(settings)
    for bad in ("../b", "/etc"):
        with pytest.raises(ConfigError, match="not a model id"):
            catalogue(NodeSettings.model_validate({"models": [{"id": bad}]}))


def test_the_same_model_twice_is_an_error(tmp_path: Path) -> None:
    model_folder(tmp_path / "a" / "b")
    settings = NodeSettings.model_validate(
        {"models_dir": tmp_path, "models": [{"id": "a/b"}, {"id": "a/b"}]}
    )
    with pytest.raises(ConfigError, match="listed twice"):
        catalogue(settings)


@pytest.mark.skipif(not BUILTIN_FOLDER.is_dir(), reason="the built-in model is not trained yet")
def test_without_any_model_it_is_the_built_in_one() -> None:
    (model,) = catalogue(NodeSettings()).models
    assert (model.model_id, model.warm) == (BUILTIN_MODEL, True)
