"""The linear map from latents to colours: fitted, published, and drawn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.engine.latent_rgb import Floats, LinearRgb, area_means, fit, known_space, probes

_CHANNELS = st.integers(1, 24)


def _planted(channels: int, seed: int) -> LinearRgb:
    draw = np.random.default_rng(seed)
    return LinearRgb(draw.normal(size=(channels, 3)), draw.normal(size=3))


def _decode(colours: LinearRgb, latents: Floats) -> Floats:
    """Decode as the planted map says, each latent pixel to a block of 4 x 4 that averages to it."""
    seen: Floats = np.einsum("ncyx,cr->nryx", latents, colours.weights)
    seen = seen + colours.offset[None, :, None, None]
    grain = np.tile([[0.3, -0.3], [-0.3, 0.3]], (2, 2))
    decoded: Floats = np.kron(seen, np.ones((4, 4))) + np.tile(grain, seen.shape[-2:])
    return decoded


@given(channels=_CHANNELS, seed=st.integers(0, 2**32 - 1))
def test_a_fit_recovers_a_planted_linear_decoder(channels: int, seed: int) -> None:
    planted = _planted(channels, seed)
    latents = probes(channels)
    pictures = _decode(planted, latents)
    found = fit(latents, area_means(pictures, latents.shape[-1]))
    np.testing.assert_allclose(found.weights, planted.weights, atol=1e-5)
    np.testing.assert_allclose(found.offset, planted.offset, atol=1e-5)


@given(channels=_CHANNELS, seed=st.integers(0, 1000), noise=st.floats(0.0, 0.3))
def test_no_map_comes_closer_to_a_decoder_that_is_not_quite_linear(
    channels: int, seed: int, noise: float
) -> None:
    planted = _planted(channels, seed)
    latents = probes(channels)
    colours = area_means(_decode(planted, latents), latents.shape[-1])
    colours = colours + np.random.default_rng(seed + 1).normal(size=colours.shape) * noise
    found = fit(latents, colours)

    def distance(candidate: LinearRgb) -> float:
        seen = np.einsum("ncyx,cr->nryx", latents, candidate.weights)
        return float(np.square(seen + candidate.offset[:, None, None] - colours).mean())

    nudged = LinearRgb(found.weights + 0.01, found.offset)
    assert distance(found) <= min(distance(planted), distance(nudged)) + 1e-9


def test_probes_are_always_the_same_and_differ_between_channels() -> None:
    first, second = probes(5), probes(5)
    assert np.array_equal(first, second)
    flat = np.moveaxis(first, 1, 0).reshape(5, -1)
    assert np.abs(np.corrcoef(flat) - np.eye(5)).max() < 0.5
    assert 0.3 < first.std() < 0.9


def test_area_means_are_the_means_of_blocks() -> None:
    picture = np.arange(48, dtype=np.float64).reshape(1, 3, 4, 4)
    means = area_means(picture, 2)
    assert means.shape == (1, 3, 2, 2)
    assert means[0, 0, 0, 0] == np.mean([0, 1, 4, 5])
    assert means[0, 2, 1, 1] == np.mean([42, 43, 46, 47])


@pytest.mark.parametrize(
    ("channels", "scale"), [(4, 0.18215), (4, 0.13025), (16, 1.5305), (16, 0.3611)]
)
def test_published_spaces_are_told_apart_by_their_vae(channels: int, scale: float) -> None:
    space = known_space(channels, scale)
    assert space is not None
    assert space.weights.shape == (channels, 3)
    others = [(4, 0.18215), (4, 0.13025), (16, 1.5305), (16, 0.3611)]
    others.remove((channels, scale))
    for other in others:
        known = known_space(*other)
        assert known is not None
        assert known.weights.shape != space.weights.shape or not np.array_equal(
            known.weights, space.weights
        )


@pytest.mark.parametrize(("channels", "scale"), [(12, 1.0), (4, 1.0), (16, 0.18215)])
def test_any_other_space_is_unknown(channels: int, scale: float) -> None:
    assert known_space(channels, scale) is None


def test_colours_are_drawn_from_minus_one_to_one_and_noise_is_calmed() -> None:
    same = LinearRgb(np.eye(3), np.zeros(3))
    latents = np.array([[[-1.0, 0.0]], [[0.0, 1.0]], [[3.0, 0.5]]])
    assert same.picture(latents).tolist() == [[[0, 128, 255], [128, 255, 191]]]
    noise = np.random.default_rng(1).normal(size=(3, 32, 32)) * 14.6
    drawn = same.picture(noise)
    assert drawn.std() == same.picture(noise * 100).std()
    assert np.mean((drawn == 0) | (drawn == 255)) < 0.6
    assert same.picture(np.full((3, 2, 2), np.nan)).tolist() == [[[128] * 3] * 2] * 2


def test_what_cannot_be_a_map_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        LinearRgb(np.full((4, 3), np.nan), np.zeros(3))
    with pytest.raises(ValueError, match="no map"):
        LinearRgb(np.zeros((4, 4)), np.zeros(3))
    with pytest.raises(ValueError, match="4 channels"):
        LinearRgb(np.zeros((4, 3)), np.zeros(3)).picture(np.zeros((3, 8, 8)))
