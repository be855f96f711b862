"""The U-Net's way up alone: from words to the mean of the pictures that they can mean.

At the noisiest times the noisy latent tells nothing, and the way down, the skip connections and attention have nothing to add.
What is left costs a third of the whole. A U-Net that is silent everywhere else does the same, and goes on from there: exactly the
same at widths where no group of a norm lies across a skip connection, nearly at those that fit what may ship.
"""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from torch.nn import functional as F


@torch.no_grad()
def silence(unet: UNet2DConditionModel) -> None:
    """Everything that `decode` leaves out begins without effect on the picture."""
    unet.mid_block.resnets[0].conv1.weight.zero_()
    quiet = [unet.down_blocks[-1].resnets[-1].conv2, unet.down_blocks[-1].resnets[-1].conv_shortcut]
    came = unet.config.block_out_channels[-1]
    for block in unet.up_blocks:
        first, *others = block.resnets
        first.conv1.weight[:, came:] = 0
        first.conv_shortcut.weight[:, came:] = 0
        came = first.out_channels
        quiet += [resnet.conv2 for resnet in others] + [attention.proj_out for attention in getattr(block, "attentions", ())]
        for resnet in others:
            nn.init.dirac_(resnet.conv_shortcut.weight)
            nn.init.zeros_(resnet.conv_shortcut.bias)
    for part in quiet:
        nn.init.zeros_(part.weight)
        nn.init.zeros_(part.bias)


def rise(block: ResnetBlock2D, x: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
    """The block of the way up for `x` `[n, channels, h, w]`, as if what is skipped to it did not count."""
    seen = x.shape[1]
    groups = block.norm1.num_groups * seen // block.norm1.num_channels
    h = F.group_norm(x, groups, block.norm1.weight[:seen], block.norm1.bias[:seen], block.norm1.eps)
    h = F.conv2d(F.silu(h), block.conv1.weight[:, :seen], block.conv1.bias, padding=1)
    return told(block, h, embedded) + F.conv2d(x, block.conv_shortcut.weight[:, :seen], block.conv_shortcut.bias)


def told(block: ResnetBlock2D, h: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
    """The block's second half, which hears the words."""
    scale, shift = block.time_emb_proj(F.silu(embedded))[:, :, None, None].chunk(2, 1)
    return block.conv2(F.silu(block.norm2(h) * (1 + scale) + shift))


def decode(unet: UNet2DConditionModel, t: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """What the U-Net predicts at the times `t` `[n]` for hidden states `[n, context, width]`, without a latent: `[n, 6, 16, 16]`."""
    embedded = unet.time_embedding(unet.get_time_embed(states, t)) + unet.add_embedding(states)
    lowest = unet.config.sample_size // 2 ** (len(unet.up_blocks) - 1)
    middle = unet.mid_block.resnets[0]
    x = told(middle, middle.conv1.bias[None, :, None, None].expand(len(states), -1, lowest, lowest), embedded)
    for block in unet.up_blocks:
        x = rise(block.resnets[0], x, embedded)
        for upsampler in block.upsamplers or ():
            x = upsampler(x)
    return unet.conv_out(F.silu(unet.conv_norm_out(x)))
