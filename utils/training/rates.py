"""Learning rates that differ within a model."""

import re

from torch import nn


def parameter_groups(model: nn.Module, encoder: float, decay: float, decoder: float = 1.0) -> list[dict]:
    """The trained parameters of models.clip or models.pointclip, by their share of the learning rate.

    encoder, decoder: shares of what lies in model.encoder and in model.decoder; the rest has 1. The encoder's falls by
    `decay` per block towards its input.
    """
    depth = model.encoder.vit.config.num_hidden_layers if model.encoder else 0
    groups = {}
    for name, parameter in model.named_parameters():
        rate = decoder if name.startswith("decoder.") else 1.0
        if name.startswith("encoder."):
            block = re.search(r"layers?\.(\d+)\.", name)
            below = depth - 1 - int(block[1]) if block else depth if "embeddings" in name else 0
            rate = encoder * decay**below
        if parameter.requires_grad:
            groups.setdefault(rate, []).append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]
