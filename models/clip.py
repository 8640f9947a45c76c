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
# The encoder "tiny": a small one of CLIP's kind with random weights, to be trained with the decoder.
_SMALL = {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 3}
_VIT = {"model_type": "clip_vision_model", "image_size": 128, "patch_size": 16, **_SMALL}
TINY = {"vit": _VIT, "mean": HALF, "std": HALF}


class ImageEncoder(nn.Module):
    """Normalised pictures (N, 3, H, W) -> patch tokens of several layers, (N, channels, H / patch, W / patch).

    vit: a vision transformer of transformers. layers: the blocks whose outputs are concatenated, counted from 1;
    default: thirds of the depth. Position embeddings are resized bicubically to the input, class and register tokens
    are dropped. mean, std: normalisation of the pictures, 0..1 RGB.
    """

    def __init__(self, vit: nn.Module, layers: Sequence[int] = (), mean=HALF, std=HALF):
        super().__init__()
        depth = vit.config.num_hidden_layers
        self.vit = vit
        self.layers = tuple(map(int, layers)) or tuple(round(depth * third / 3) for third in (1, 2, 3))
        if not all(1 <= layer <= depth for layer in self.layers):
            raise ValueError(f"layers {self.layers}: the encoder has blocks 1 to {depth}")
        self.patch_size = vit.config.patch_size
        self.channels = len(self.layers) * vit.config.hidden_size
        self.mean, self.std = tuple(mean), tuple(std)
        # DINOv2 always resizes its position embeddings and has no such argument.
        asks = "interpolate_pos_encoding" in inspect.signature(vit.forward).parameters
        self.options = {"interpolate_pos_encoding": True} if asks else {}

    @classmethod
    def from_pretrained(cls, name: str, layers: Sequence[int] = ()) -> "ImageEncoder":
        """The encoder with this hub id or in this folder. Raises OSError if it cannot be loaded (models/hub.py)."""
        vit, mean, std = load_pretrained(name, lambda local: _read(name, local))
        if not all(hasattr(vit.config, key) for key in ("num_hidden_layers", "patch_size")):
            raise OSError(f"{name}: a {vit.config.model_type} is no vision transformer such as CLIP, DINOv2 or DeiT")
        return cls(vit, layers, mean, std)

    @classmethod
    def from_config(cls, config: dict, layers: Sequence[int] = ()) -> "ImageEncoder":
        """The encoder that `config` describes, with random weights. config: what an encoder's config() returned."""
        from transformers import AutoConfig, AutoModel

        vit = AutoModel.from_config(AutoConfig.for_model(**config["vit"]))
        return cls(getattr(vit, "vision_model", vit), layers, config["mean"], config["std"])

    def config(self) -> dict:
        """Architecture and normalisation in plain values, for checkpoints that store the weights."""
        vit = {key: value for key, value in self.vit.config.to_dict().items() if key not in ("id2label", "label2id")}
        return {"vit": vit, "mean": self.mean, "std": self.std}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.encode(images)[0]

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The patch tokens that forward() returns, and an embedding of the whole picture, (N, D).

        The embedding is the last layer's class token, or the mean of its tokens if there is none.
        """
        height, width = (side // self.patch_size for side in images.shape[-2:])
        if (height * self.patch_size, width * self.patch_size) != images.shape[-2:]:
            size = "{} x {}".format(*images.shape[-2:])
            raise ValueError(f"pictures of {size} pixels: the encoder takes multiples of {self.patch_size}")
        output = self.vit(images, output_hidden_states=True, **self.options)
        states = output.hidden_states
        # states[0] is the embedding; each is (N, class and register tokens + h * w, D)
        tapped = torch.cat([states[layer][:, -height * width :] for layer in self.layers], dim=2)
        last = output.last_hidden_state
        embedding = last[:, 0] if last.shape[1] > height * width else last.mean(1)
        return tapped.transpose(1, 2).unflatten(2, (height, width)), embedding


def load_encoder(name: str, layers: Sequence[int], frozen: bool, config: dict | None = None) -> ImageEncoder:
    """The encoder with this hub id or in this folder, or "tiny". Raises OSError if it cannot be loaded.

    config: what config() returned; the weights come later, with the model's, and nothing is downloaded.
    """
    config = TINY if name == "tiny" else config
    encoder = ImageEncoder.from_config(config, layers) if config else ImageEncoder.from_pretrained(name, layers)
    return encoder.requires_grad_(not frozen)


def encoder_title(name: str, tuned: bool) -> str:
    """Name of an encoder in the table: as its paper calls it, and the data it was trained on."""
    titles = {
        "tiny": "tiny, from scratch",
        "facebook/deit-tiny-patch16-224": "DeiT-Tiny (ImageNet)",
        "openai/clip-vit-base-patch16": "CLIP ViT-B/16",
    }
    return titles.get(name, name) + ", fine-tuned" * tuned


class CLIPDecoder(nn.Module):
    """Patch tokens (N, channels, h, w) and the picture (N, 3, H, W) -> feature maps (N, widths[0], H / 2, W / 2).

    Tokens say what is where, but only per patch; a shallow convolutional stem on the picture adds the outlines, as
    skip connections at 1/2, 1/4 and 1/8 of its size.
    """

    def __init__(self, channels: int, widths: Sequence[int], dropout: float):
        super().__init__()
        *stem_widths, token_width = widths
        self.stem = Encoder(tuple(stem_widths), stem_stride=2)
        self.project = nn.Sequential(
            nn.BatchNorm2d(channels, affine=False),  # the convolution scales them, and frozen tokens need no gradient
            nn.Dropout2d(dropout),
            nn.Conv2d(channels, token_width, 1),
            SelfAttention(token_width),  # so that a whole animal gets one class
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

    encoder: hub id or folder, or "tiny" (see TINY). widths: channels at 1/2, 1/4, 1/8 and at the tokens.
    encoder_config: see load_encoder(). name_parts: a linear layer on the embedding classifies object crops
    (utils/training/naming.py fits it).
    """

    def __init__(
        self,
        encoder: str,
        layers: Sequence[int] = (),
        classes: int = 3,
        widths: Sequence[int] = (16, 48, 96, 192),
        dropout: float = 0.1,
        freeze_encoder: bool = True,
        encoder_config: dict | None = None,
        name_parts: bool = False,
    ):
        super().__init__()
        self.encoder = load_encoder(encoder, layers, freeze_encoder, encoder_config)
        self.decoder = CLIPDecoder(self.encoder.channels, widths, dropout)
        self.head = nn.Conv2d(widths[0], classes, 1)
        if name_parts:
            self.add_names()

    def add_names(self) -> None:
        self.name_layer = nn.Linear(self.encoder.vit.config.hidden_size, self.head.out_channels - 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.decoder(images, self.encoder(images)))

    def with_names(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits per pixel, and logits (N, classes - 1) of the whole picture, without the background."""
        tokens, embedding = self.encoder.encode(images)
        return self.head(self.decoder(images, tokens)), self.name_layer(embedding)


def _read(name: str, local_files_only: bool) -> tuple:
    """(vision transformer, mean, std); the image tower of a model of images and text."""
    from transformers import AutoImageProcessor, AutoModel  # here: importing them takes seconds

    model, report = AutoModel.from_pretrained(name, local_files_only=local_files_only, output_loading_info=True)
    check_complete(report)
    processor = AutoImageProcessor.from_pretrained(name, local_files_only=local_files_only)
    return getattr(model, "vision_model", model), processor.image_mean, processor.image_std
