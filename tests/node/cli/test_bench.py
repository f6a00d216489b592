"""`limner-node bench` with the built-in model in a real worker."""

import json
from fractions import Fraction
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from network.units import parse_price
from node.__main__ import main

MODEL = "limner/shapes"


def bench(folder: Path, *arguments: str | Path) -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(main, ["bench", "--data-dir", str(folder), *words])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return settings with a profile and one thread."""
    path = tmp_path / "node.toml"
    path.write_text(
        f'usd_per_eth = "3000"\n[engine]\ndevice = "cpu"\nthreads = 1\n'
        f'[[models]]\nid = "{MODEL}"\n[models.profile]\nsteps = 2\nguidance = 1.0\n'
    )
    return path


def test_each_size_and_number_of_callers_is_measured_and_priced(
    tmp_path: Path, config: Path
) -> None:
    written = tmp_path / "bench.json"
    sizes = ("--size", "64x64", "--size", "128x96", "--size", "100x64")
    done = bench(
        tmp_path,
        *("--config", config, *sizes, "--callers", "1", "--callers", "2", "--images", "2"),
        *("--cost-per-hour", "0.4", "--busy", "1/4", "--json", "--write", written),
    )
    assert done.exit_code == 1  # one of the sizes cannot be made
    report = json.loads(done.stdout)
    assert json.loads(written.read_text()) == report
    assert report["busy"] == "1/4"
    (model,) = report["models"]
    assert (model["id"], model["steps"], model["guidance"]) == (MODEL, 2, 1.0)
    assert model["load_seconds"] > 0
    cases = [(one["width"], one["height"], one["callers"]) for one in model["cases"]]
    assert cases == [(64, 64, 1), (64, 64, 2), (128, 96, 1), (128, 96, 2), (100, 64, 1)]
    *good, bad = model["cases"]
    assert "multiple of 32" in bad["error"]
    for one in good:
        pixels = one["width"] * one["height"]
        assert one["images"] == 2
        assert one["seconds_per_pixel_step"] == pytest.approx(
            one["seconds_per_image"] / pixels / 2
        )
        # 0.4 dollars an hour, a quarter of it paid for
        wei_per_second = Fraction(2, 5) / 3000 * 10**18 / 3600 * 4
        exact = wei_per_second * Fraction(one["seconds_per_image"]) / pixels
        assert -0.001 < parse_price(one["break_even_price"]) - exact < 1.001
    best = {
        size: min(parse_price(one["break_even_price"]) for one in good if one["width"] == size)
        for size in (64, 128)
    }
    assert parse_price(model["price"]) == max(best.values())


def test_a_table_without_costs_names_no_price(tmp_path: Path, config: Path) -> None:
    done = bench(
        tmp_path,
        *("--config", config, "--size", "64x64", "--callers", "1", "--images", "1"),
        *("--steps", "3"),
    )
    assert done.exit_code == 0, done.output
    assert "64x64" in done.stdout
    assert "wei" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--cost-per-hour", "0.4"), "--usd-per-eth"),
        (("--cost-per-hour", "0"), "no number above 0"),
        (("--busy", "2"), "at most 1"),
        (("--size", "large"), "write 1024x576"),
        (("--model", "a/b"), "a/b is not configured; there are limner/shapes"),
    ],
)
def test_a_wrong_option_is_explained(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = bench(tmp_path, *arguments)
    assert done.exit_code == 2
    assert words in done.output
