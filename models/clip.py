"""CLIP encoder + CNN: patch tokens of a pretrained vision transformer, and a convolutional decoder.

The encoder is any vision transformer that transformers knows: CLIP (Radford et al., ICML 2021), SigLIP, DINOv2,
ViT or DeiT.
"""

import inspect
from collections.abc import Sequence

import torch
from torch import nn

from models.blocks import Decoder, Encoder, ResidualBlock, SelfAttention
from models.hub import check_complete, load_pretrained

HALF = (0.5, 0.5, 0.5)


class ImageEncoder(nn.Module):
    """Normalised pictures (N, 3, H, W) -> patch tokens of several layers, (N, channels, H / patch, W / patch).

    vit: a vision transformer of transformers. layers: the blocks whose output is tapped, counted from 1; default:
    thirds of the depth; their channels are stacked. Position embeddings are resized bicubically to the input, and
    class and register tokens are dropped. mean, std: of the pictures, 0..1 RGB.
    """

    def __init__(self, vit: nn.Module, layers: Sequence[int] = (), mean=HALF, std=HALF):
        super().__init__()
        depth = vit.config.num_hidden_layers
        self.vit = vit
        self.layers = tuple(layers) or tuple(round(depth * third / 3) for third in (1, 2, 3))
        if not all(1 <= layer <= depth for layer in self.layers):
            raise ValueError(f"layers {self.layers}: the encoder has blocks 1 to {depth}")
        self.patch_size = vit.config.patch_size
        self.channels = len(self.layers) * vit.config.hidden_size
        self.mean, self.std = tuple(mean), tuple(std)
        # DINOv2 resizes its positions unasked, and knows no such argument.
        asks = "interpolate_pos_encoding" in inspect.signature(vit.forward).parameters
        self.options = {"interpolate_pos_encoding": True} if asks else {}

    @classmethod
    def from_pretrained(cls, name: str, layers: Sequence[int] = ()) -> "ImageEncoder":
        """The encoder with this hub id or in this folder. Raises OSError if it cannot be had (models/hub.py)."""
        vit, mean, std = load_pretrained(name, lambda local: _read(name, local))
        return cls(vit, layers, mean, std)

    @classmethod
    def tiny(cls, layers: Sequence[int] = ()) -> "ImageEncoder":
        """A small encoder of CLIP's shape with random weights, to be trained along with the decoder."""
        from transformers import CLIPVisionConfig, CLIPVisionModel

        config = CLIPVisionConfig(
            hidden_size=96,
            intermediate_size=192,
            num_hidden_layers=3,
            num_attention_heads=3,
            image_size=128,
            patch_size=16,
        )
        return cls(CLIPVisionModel(config), layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        height, width = (side // self.patch_size for side in images.shape[-2:])
        if (height * self.patch_size, width * self.patch_size) != images.shape[-2:]:
            size = "{} x {}".format(*images.shape[-2:])
            raise ValueError(f"pictures of {size} pixels: the encoder takes multiples of {self.patch_size}")
        states = self.vit(images, output_hidden_states=True, **self.options).hidden_states
        # states[0] is the embedding; each is (N, class and register tokens + h * w, D)
        tapped = torch.cat([states[layer][:, -height * width :] for layer in self.layers], dim=2)
        return tapped.transpose(1, 2).unflatten(2, (height, width))  # (N, channels, h, w)


def load_encoder(name: str, layers: Sequence[int], frozen: bool) -> ImageEncoder:
    """The encoder with this hub id or in this folder, or "tiny". Raises OSError if it cannot be had."""
    encoder = ImageEncoder.tiny(layers) if name == "tiny" else ImageEncoder.from_pretrained(name, layers)
    return encoder.requires_grad_(not frozen)


class CLIPDecoder(nn.Module):
    """Patch tokens (N, channels, h, w) and the picture (N, 3, H, W) -> feature maps (N, widths[0], H / 2, W / 2).

    The tokens know what is where, but only per patch; a shallow convolutional stem on the picture gives the
    outlines, as skip connections at 1/2, 1/4 and 1/8 of its size.
    """

    def __init__(self, channels: int, widths: Sequence[int], dropout: float):
        super().__init__()
        *stem_widths, token_width = widths
        self.stem = Encoder(tuple(stem_widths), stem_stride=2)
        self.project = nn.Sequential(
            nn.BatchNorm2d(channels, affine=False),  # the convolution scales them; frozen tokens need no gradient
            nn.Dropout2d(dropout),
            nn.Conv2d(channels, token_width, 1),
            SelfAttention(token_width),  # one species for the whole animal
            ResidualBlock(token_width, token_width),
            ResidualBlock(token_width, token_width),
        )
        self.decoder = Decoder(tuple(widths))

    def features(self, images: torch.Tensor, tokens: torch.Tensor) -> list[torch.Tensor]:
        """The stem's maps at 1/2, 1/4, 1/8 of the picture's size and the projected tokens, finest first."""
        return [*self.stem(images), self.project(tokens)]

    def forward(self, images: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.features(images, tokens))


class CLIPCNN(nn.Module):
    """images (N, 3, H, W), normalised with the encoder's mean and std -> logits (N, classes, H / 2, W / 2).

    encoder: hub id or folder, or "tiny" (ImageEncoder.tiny). widths: channels at 1/2, 1/4, 1/8 and at the tokens.
    tokens: what the encoder returned for these pictures, if it is already known.
    """

    def __init__(
        self,
        encoder: str,
        layers: Sequence[int] = (),
        classes: int = 3,
        widths: Sequence[int] = (16, 48, 96, 192),
        dropout: float = 0.1,
        freeze_encoder: bool = True,
    ):
        super().__init__()
        self.encoder = load_encoder(encoder, layers, freeze_encoder)
        self.decoder = CLIPDecoder(self.encoder.channels, widths, dropout)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, images: torch.Tensor, tokens: torch.Tensor | None = None) -> torch.Tensor:
        if tokens is None:
            tokens = self.encoder(images)
        return self.head(self.decoder(images, tokens))


def _read(name: str, local_files_only: bool) -> tuple:
    """(vision transformer, mean, std); of a model of pictures and text, the picture tower."""
    from transformers import AutoImageProcessor, AutoModel  # here: importing them takes seconds

    model, report = AutoModel.from_pretrained(name, local_files_only=local_files_only, output_loading_info=True)
    check_complete(report)
    processor = AutoImageProcessor.from_pretrained(name, local_files_only=local_files_only)
    return getattr(model, "vision_model", model), processor.image_mean, processor.image_std
