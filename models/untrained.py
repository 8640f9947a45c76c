"""The models at their usual sizes with random weights: time and memory do not depend on what the weights are."""

import torch
from torch import nn

from models.clip import CLIPCNN, CLIPDecoder, ImageEncoder
from models.clipseg import CLIPSeg
from models.pointclip import PointCLIP

BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}  # ViT-B
TINY = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 12, "num_attention_heads": 3}  # DeiT-Tiny


def image_encoder(sizes: dict) -> ImageEncoder:
    """A vision transformer of CLIP's shape with 16 x 16 patches. sizes: BASE or TINY."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    return ImageEncoder(CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=224, patch_size=16)))


def clip_cnn(sizes: dict = TINY) -> CLIPCNN:
    return _on_encoder(CLIPCNN("tiny", freeze_encoder=False), sizes)


def point_clip(sizes: dict = TINY) -> PointCLIP:
    return _on_encoder(PointCLIP("tiny", freeze_encoder=False), sizes)


def clipseg() -> CLIPSeg:
    """With two random embeddings in place of prompts, for there is no tokenizer."""
    model, embeddings = CLIPSeg(clipseg_reference(), None), torch.randn(2, 512)
    model.encode_prompts = lambda prompts: embeddings
    return model


def clipseg_reference() -> nn.Module:
    """transformers' own CLIPSeg."""
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

    return CLIPSegForImageSegmentation(CLIPSegConfig(vision_config={**BASE, "patch_size": 16}))


def _on_encoder(model: nn.Module, sizes: dict) -> nn.Module:
    """The model on an encoder of these sizes instead of its own, frozen."""
    model.encoder = image_encoder(sizes).requires_grad_(False)
    model.decoder = CLIPDecoder(model.encoder.channels, (16, 48, 96, 192), 0.1)
    return model
