"""Same seed, same parameters: the same bytes, whoever asks and however often."""

from typing import Any

import pytest

from scripts.local_network.network import LocalNetwork
from tests.integration.asking import QUICK, ask, images, session

pytestmark = pytest.mark.slow


async def test_the_same_request_gives_the_same_bytes_every_time(one_node: LocalNetwork) -> None:
    async with session() as http:
        made = [
            await images(http, await ask(http, one_node.gateway, {**QUICK, "seed": 1234}))
            for _ in range(3)
        ]
    assert made[0] == made[1] == made[2]
    assert made[0][0][0] == 1234


async def test_three_images_from_seed_seven_equal_the_three_single_requests(
    one_node: LocalNetwork,
) -> None:
    async with session() as http:
        wish = {**QUICK, "seed": 7, "num_images_per_prompt": 3, "deterministic": True}
        together = await images(http, await ask(http, one_node.gateway, wish))
        alone = [
            (await images(http, await ask(http, one_node.gateway, {**QUICK, "seed": seed})))[0]
            for seed in (7, 8, 9)
        ]
    assert [seed for seed, _ in together] == [7, 8, 9]
    assert together == alone
    assert len({png for _, png in together}) == 3


async def test_other_seeds_steps_prompts_and_guidance_give_other_pictures(
    one_node: LocalNetwork,
) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"seed": 8},
        {"num_inference_steps": 3},
        {"prompt": "a blue square on a black background"},
        {"guidance_scale": 2.0},
        {"negative_prompt": "circle"},
    ]
    async with session() as http:
        pictures = [
            (await images(http, await ask(http, one_node.gateway, {**QUICK, "seed": 7, **c})))[0][
                1
            ]
            for c in changes
        ]
    assert len(set(pictures)) == len(changes)


async def test_a_request_without_a_seed_is_given_one_that_repeats_it(
    one_node: LocalNetwork,
) -> None:
    async with session() as http:
        ((seed, png),) = await images(http, await ask(http, one_node.gateway))
        again = await images(http, await ask(http, one_node.gateway, {**QUICK, "seed": seed}))
        ((other, _),) = await images(http, await ask(http, one_node.gateway))
    assert again == [(seed, png)]
    assert other != seed
    assert 0 <= seed < 2**32
