"""PointCLIP: point-prompted segmentation on the tokens of a frozen image encoder.

Clicks and the previous mask are input maps beside the picture, as in RITM (Sofiiuk et al., ICIP 2022). The picture is
encoded once for all clicks, as in Segment Anything (Kirillov et al., ICCV 2023).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from models.blocks import Encoder, ResidualBlock, conv_norm
from models.clip import CLIPDecoder, load_encoder


class PointCLIP(nn.Module):
    """images (N, 3, H, W), normalised with the encoder's mean and std, and clicks -> logits (N, 1, H / 2, W / 2).

    clicks: (N, K, 3): x and y as fractions of width and height; 1 on the thing, 0 on the rest, -1 for no click.
    previous: probabilities (N, 1, H / 2, W / 2), the answer before the last click; None for 0. tokens: precomputed
    encoder output. encode() runs once per picture, decode() once per click. click_radius: a fraction of the picture's
    side. encoder_config: see load_encoder().
    """

    def __init__(
        self,
        encoder: str,
        layers: Sequence[int] = (),
        widths: Sequence[int] = (16, 48, 96, 192),
        dropout: float = 0.1,
        freeze_encoder: bool = True,
        click_radius: float = 0.02,
        encoder_config: dict | None = None,
    ):
        super().__init__()
        self.click_radius = click_radius
        self.encoder = load_encoder(encoder, layers, freeze_encoder, encoder_config)
        self.decoder = CLIPDecoder(self.encoder.channels, widths, dropout)
        prompt_widths = tuple(max(width // 2, 8) for width in widths[1:])  # from 1/4 on: clicks have no fine detail
        self.prompt_stem = Encoder(prompt_widths, stem_stride=2)
        self.prompts = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(prompt_widths, widths[1:], strict=True))
        fine, coarse = widths[0], widths[-1]
        self.compare = nn.Sequential(
            conv_norm(5 * coarse, coarse, 1),
            nn.ReLU(inplace=True),
            ResidualBlock(coarse, coarse),
            nn.Conv2d(coarse, coarse, 1),
        )
        self.head = nn.Sequential(
            nn.Linear(2 * coarse + 2 * fine, coarse), nn.ReLU(inplace=True), nn.Linear(coarse, fine + 1)
        )
        for layer in (*self.prompts, self.compare[-1]):  # at first clicks change the head only
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        images: torch.Tensor,
        clicks: torch.Tensor,
        previous: torch.Tensor | None = None,
        tokens: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return self.decode(self.encode(images, tokens), clicks, previous)

    def encode(self, images: torch.Tensor, tokens: torch.Tensor | None = None) -> list[torch.Tensor]:
        """Pictures -> feature maps at 1/2, 1/4, 1/8 of their size and of the tokens, finest first."""
        return self.decoder.features(images, self.encoder(images) if tokens is None else tokens)

    def decode(
        self, features: list[torch.Tensor], clicks: torch.Tensor, previous: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Feature maps of encode() and clicks -> logits (N, 1, H / 2, W / 2)."""
        maps = draw_clicks(clicks, features[0].shape[-2:], self.click_radius)
        if previous is None:
            previous = torch.zeros_like(maps[:, :1])
        prompts = self.prompt_stem(torch.cat([maps, previous], 1).contiguous(memory_format=torch.channels_last))
        finest, *features = features
        joined = [finest]
        for feature, prompt, project in zip(features, prompts, self.prompts, strict=True):
            prompt = project(prompt)
            if prompt.shape[-2:] != feature.shape[-2:]:  # a patch size that is no power of two
                prompt = F.interpolate(prompt, size=feature.shape[-2:], mode="bilinear", align_corners=False)
            joined.append(feature + prompt)
        *fine, tokens = joined
        # Compare every token with those under the clicks: a click acts on the whole picture.
        queries = [mean_at(tokens, clicks, label) for label in (1, 0)]  # each (N, C)
        positive, negative = (query[..., None, None].expand_as(tokens) for query in queries)
        tokens = tokens + self.compare(torch.cat([tokens, positive, negative, tokens * positive, tokens * negative], 1))
        x = self.decoder.decoder([*fine, tokens])
        # The last layer's weights depend on the clicks: the same feature maps serve animal and background.
        head = self.head(torch.cat([*queries, *(mean_at(x, clicks, label) for label in (1, 0))], 1))
        return torch.einsum("nchw,nc->nhw", x, head[:, :-1])[:, None] + head[:, -1, None, None, None]


def draw_clicks(clicks: torch.Tensor, size: tuple[int, int], radius: float) -> torch.Tensor:
    """Clicks (N, K, 3), see PointCLIP -> maps of disks on the thing and on the rest, (N, 2, *size)."""
    rows, columns = ((torch.arange(side, device=clicks.device) + 0.5) / side for side in size)
    radius = max(radius, 0.75 / min(size))  # at least a pixel
    x, y, label = clicks[..., None, None].unbind(2)  # each (N, K, 1, 1)
    distance = ((columns - x) ** 2 + (rows[:, None] - y) ** 2) / radius**2  # (N, K, h, w), squared, in radii
    drawn = (distance <= 1).float()
    return torch.stack([(drawn * (label == kind)).amax(1) for kind in (1, 0)], 1)


def mean_at(features: torch.Tensor, clicks: torch.Tensor, label: int) -> torch.Tensor:
    """Mean of feature maps (N, C, h, w) at the clicks (N, K, 3) with a label, interpolated: (N, C); 0 without one."""
    grid = clicks[:, None, :, :2] * 2 - 1  # -1..1, as in grid_sample
    # float32: coordinates in bfloat16 would be off by a pixel
    values = F.grid_sample(features.float(), grid, padding_mode="border", align_corners=False)[:, :, 0]  # (N, C, K)
    chosen = (clicks[:, None, :, 2] == label).float()
    return (values * chosen).sum(2) / chosen.sum(2).clamp(min=1)
