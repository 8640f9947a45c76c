"""CLIPSeg: a text prompt per class instead of training (Lüddecke & Ecker, CVPR 2022, arXiv:2112.10003)."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from models.hub import check_complete, load_pretrained

HUB_ID = "CIDAS/clipseg-rd64-refined"


class CLIPSeg(nn.Module):
    """pixel_values (N, 3, S, S), conditionals (P, D) -> logits (N, P, S, S), one map per prompt, before the sigmoid.

    reference: a transformers CLIPSegForImageSegmentation, whose modules are taken over and frozen. A picture is encoded
    once for all prompts; encoder layers that the decoder does not read are dropped. tokenizer: strings -> input_ids, as
    in transformers. image_size: the S of the weights' training; any multiple of the patch size works. mean, std:
    normalisation of pixel_values, 0..1 RGB.
    """

    title = "CLIP ViT-B/16"  # of its encoder, in tables

    def __init__(
        self,
        reference: nn.Module,
        tokenizer,
        image_size: int = 352,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ):
        super().__init__()
        config = reference.config
        self.image_size, self.mean, self.std = image_size, tuple(mean), tuple(std)
        self.extract_layers = tuple(config.extract_layers)
        self.tokenizer = tokenizer
        self.vision = reference.clip.vision_model
        self.vision.encoder.layers = self.vision.encoder.layers[: max(self.extract_layers) + 1]
        self.text = reference.clip.text_model
        self.text_projection = reference.clip.text_projection
        self.decoder = reference.decoder
        self._conditionals: dict[tuple, torch.Tensor] = {}  # prompts -> (P, D)
        self.eval().requires_grad_(False)

    @classmethod
    def from_pretrained(cls, name: str | Path = HUB_ID) -> "CLIPSeg":
        """Weights, tokenizer and normalisation; name: hub id or folder. Raises OSError, see load_pretrained."""
        reference, processor = load_pretrained(str(name), lambda local: _read(str(name), local))
        pictures = processor.image_processor
        return cls(reference, processor.tokenizer, pictures.size["height"], pictures.image_mean, pictures.image_std)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[Sequence[str]]) -> torch.Tensor:
        """The filled-in templates of each of P classes -> one conditional per class, (P, D); cached.

        The embeddings of a class's templates are averaged without normalising them: the decoder was trained on mixtures
        of raw embeddings (the paper's image-text interpolation).
        """
        key, device = tuple(map(tuple, prompts)), self.text_projection.weight.device
        if key not in self._conditionals:
            texts = [text for templates in key for text in templates]
            tokens = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")["input_ids"]
            # No attention mask: attention is causal, and the padding comes after the end token, which is read.
            with torch.autocast(device.type, enabled=False):  # cached: the same in every precision
                embeddings = self.text_projection(self.text(tokens.to(device)).pooler_output)  # (templates, D)
            per_class = embeddings.split([len(templates) for templates in key])
            self._conditionals[key] = torch.stack([templates.mean(0) for templates in per_class])
        return self._conditionals[key]

    def forward(self, pixel_values: torch.Tensor, conditionals: torch.Tensor) -> torch.Tensor:
        states = self.vision(
            pixel_values, interpolate_pos_encoding=True, output_hidden_states=True, return_dict=True
        ).hidden_states  # the embedding first, then the output of every layer: (N, 1 + tokens, C)
        activations, count = [states[layer + 1] for layer in self.extract_layers], len(pixel_values)
        logits = torch.stack([self.decoder(activations, p.expand(count, -1)).logits for p in conditionals], 1)
        return logits.float() if logits.dtype == torch.bfloat16 else logits


def _read(name: str, local_files_only: bool) -> tuple:
    """(CLIPSegForImageSegmentation, CLIPSegProcessor)"""
    from transformers import CLIPSegForImageSegmentation, CLIPSegProcessor  # here: importing them takes seconds

    reference, report = CLIPSegForImageSegmentation.from_pretrained(
        name, local_files_only=local_files_only, output_loading_info=True
    )
    check_complete(report)
    return reference, CLIPSegProcessor.from_pretrained(name, local_files_only=local_files_only)
