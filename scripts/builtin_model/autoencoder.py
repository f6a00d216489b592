"""The autoencoder: an encoder whose weights are written down and a decoder that is trained.

A latent is the picture box-averaged to 1/16, as colours in -1..1, with each 2 x 2 cells put
into 12 channels at 1/32. The decoder restores crisp edges from these averages.
"""

from diffusers import AutoencoderTiny
from torch import Tensor, nn

LEVELS = 6  # five halvings: factor 32
WIDTH = 32
LATENT_CHANNELS = 12


def build_autoencoder() -> AutoencoderTiny:
    """Build the stock class with an exact encoder and an untrained decoder.

    Upsampling is bilinear: an edge is the zero line of a smooth function, which bilinear
    steps refine at every angle, while nearest steps would leave stairs to be undone.
    """
    autoencoder = AutoencoderTiny(
        in_channels=3,
        out_channels=3,
        latent_channels=LATENT_CHANNELS,
        encoder_block_out_channels=(LATENT_CHANNELS,) * LEVELS,
        decoder_block_out_channels=(WIDTH,) * LEVELS,
        num_encoder_blocks=(0,) * LEVELS,
        num_decoder_blocks=(4, 4, 3, 1, 1, 0),
        latent_magnitude=3,
        latent_shift=0.5,
        scaling_factor=1.0,
        upsample_fn="bilinear",
    )
    write_encoder(autoencoder)
    return autoencoder


def write_encoder(autoencoder: AutoencoderTiny) -> None:
    """Set the encoder's convolutions to box averages and a 2 x 2 pixel-unshuffle.

    The class maps its input from -1..1 to 0..1 first; the last convolution maps it back. A
    stride-2 convolution with padding 1 finds its 2 x 2 block at taps 1 and 2.
    """
    autoencoder.encoder.requires_grad_(requires_grad=False)
    convolutions = [m for m in autoencoder.encoder.layers if isinstance(m, nn.Conv2d)]
    first, *halvings, last = convolutions
    for convolution in convolutions:
        convolution.weight.zero_()
        if convolution.bias is not None:
            convolution.bias.zero_()
    for channel in range(3):
        first.weight[channel, channel, 1, 1] = 1.0
        for halving in halvings[:-1]:
            halving.weight[channel, channel, 1:, 1:] = 0.25
        for place in range(4):
            row, column = divmod(place, 2)
            halvings[-1].weight[4 * channel + place, channel, 1 + row, 1 + column] = 1.0
    for channel in range(LATENT_CHANNELS):
        last.weight[channel, channel, 1, 1] = 2.0
    last.bias.fill_(-1.0)


def restoration_loss(restored: Tensor, truth: Tensor) -> Tensor:
    """Compare pictures (B, 3, H, W): colour, edges, and the colour of larger areas."""
    difference = restored - truth
    across = difference.diff(dim=-1).abs().mean()
    down = difference.diff(dim=-2).abs().mean()
    areas = nn.functional.avg_pool2d(difference, 8).abs().mean()
    return difference.abs().mean() + 2.0 * difference.square().mean() + across + down + 0.5 * areas
