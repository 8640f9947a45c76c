"""Block diagrams of the models, with the shapes that the modules return."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch
from torch import nn

from utils.figures.plots import save_figure
from utils.rows import ROWS

COLOURS = {"data": "#E8E8E8", "trained": "#CFE3F3", "frozen": "#F6E3B5", "result": "#D3EBD3"}
SIZE = 160  # side of the U-Net's input in pixels
CLIP_SIZE, PATCH, TOKEN_CHANNELS = 256, 16, 3 * 768  # three layers of CLIP ViT-B/16
MODELS = {row.file: row.model for row in ROWS}


@dataclass
class Box:
    """One step: centre, text, and kind (a key of COLOURS)."""

    x: float
    y: float
    text: str
    kind: str = "trained"


def draw(boxes: dict[str, Box], arrows: list[tuple[str, str]], path: Path, size: tuple[float, float]) -> None:
    """Draw boxes and arrows between them; dashed where the start's name begins with "~". size: in inches."""
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    width, height = 1.7, 0.62
    for box in boxes.values():
        corner = (box.x - width / 2, box.y - height / 2)
        style = {"boxstyle": "round,pad=0.02,rounding_size=0.08", "edgecolor": "#555555"}
        axes.add_patch(FancyBboxPatch(corner, width, height, facecolor=COLOURS[box.kind], **style))
        axes.text(box.x, box.y, box.text, ha="center", va="center", fontsize=9, color="black")
    for start, end in arrows:
        a, b = boxes[start.lstrip("~")], boxes[end]
        if a.x == b.x or abs(a.y - b.y) > abs(a.x - b.x):
            up = 1 if b.y > a.y else -1
            points = (a.x, a.y + up * height / 2), (b.x, b.y - up * height / 2)
        else:
            right = 1 if b.x > a.x else -1
            points = (a.x + right * width / 2, a.y), (b.x - right * width / 2, b.y)
        style = {"arrowstyle": "-|>", "color": "#333333", "linestyle": "--" if start[0] == "~" else "-"}
        axes.annotate("", points[1], points[0], arrowprops={**style, "shrinkA": 1, "shrinkB": 1})
    across, down = [box.x for box in boxes.values()], [box.y for box in boxes.values()]
    axes.set(xlim=(min(across) - 1, max(across) + 1), ylim=(min(down) - 0.5, max(down) + 0.5))
    axes.axis("off")
    save_figure(figure, path)


def shape(tensor: torch.Tensor) -> str:
    """(1, C, H, W) -> "C x H x W"."""
    return " × ".join(map(str, tensor.shape[1:]))


def merged(decoder: nn.Module, features: list[torch.Tensor]) -> list[str]:
    """Output shapes of a decoder's levels, coarsest first."""
    found = []
    hooks = [layer.register_forward_hook(lambda *call: found.append(shape(call[-1]))) for layer in decoder.merge]
    decoder(features)
    for hook in hooks:
        hook.remove()
    return found


def u_net(model: nn.Module, first: str, last: str) -> tuple[dict[str, Box], list[tuple[str, str]]]:
    """Boxes and arrows of a U-Net; first, last: texts of its input and output."""
    features = model.eval().encoder(torch.zeros(1, 3, SIZE, SIZE))
    ups = merged(model.decoder, features)[::-1]  # finest first
    depth = len(features)
    right = depth + 1.2  # the decoder is mirrored, with room for the skip connections
    boxes = {"in": Box(0, 1, f"{first}\n3 × {SIZE} × {SIZE}", "data")}
    for level, feature in enumerate(features):
        boxes[f"down{level}"] = Box(0.5 * level, -level, f"residual\n{shape(feature)}")
    for level, up in enumerate(ups):
        boxes[f"up{level}"] = Box(right - 0.5 * level, -level, f"join + residual\n{up}")
    boxes["out"] = Box(right, 1, f"{last}\n{shape(model(torch.zeros(1, 3, SIZE, SIZE)))}", "result")
    arrows = [("in", "down0"), ("up0", "out"), (f"down{depth - 1}", f"up{depth - 2}")]
    arrows += [(f"down{level}", f"down{level + 1}") for level in range(depth - 1)]
    arrows += [(f"up{level + 1}", f"up{level}") for level in range(depth - 2)]
    arrows += [(f"~down{level}", f"up{level}") for level in range(depth - 1)]
    return boxes, arrows


def draw_unet(path: Path) -> None:
    draw(*u_net(MODELS["unet"](), "picture", "logits"), path, (7.6, 5))


def draw_autoencoder(path: Path) -> None:
    model = MODELS["autoencoder"]()  # both stages have three output channels: colours or classes
    boxes, arrows = u_net(model, "hidden patches", "rebuilt picture")
    boxes |= {"1": Box(3.1, 1, "stage 1", "data"), "2": Box(8.8, 1, "stage 2", "data")}
    boxes["picture"] = Box(8.8, -0.5, boxes["in"].text.replace("hidden patches", "picture"), "data")
    boxes["same"] = Box(8.8, -2, "the same network,\nnew last layer")
    boxes["logits"] = Box(8.8, -3.5, boxes["out"].text.replace("rebuilt picture", "logits"), "result")
    arrows += [("picture", "same"), ("same", "logits"), ("~up2", "same")]
    draw(boxes, arrows, path, (10, 5))


def clip_boxes() -> tuple[dict[str, Box], list[tuple[str, str]]]:
    """Boxes and arrows that CLIP and PointCLIP share."""
    tiny = MODELS["clip"]("tiny", freeze_encoder=False)
    decoder = type(tiny.decoder)(TOKEN_CHANNELS, (16, 48, 96, 192), 0.0).eval()  # for a large encoder
    tokens = torch.zeros(1, TOKEN_CHANNELS, CLIP_SIZE // PATCH, CLIP_SIZE // PATCH)
    features = decoder.features(torch.zeros(1, 3, CLIP_SIZE, CLIP_SIZE), tokens)
    ups = merged(decoder.decoder, features)[::-1]
    boxes = {"in": Box(0, 0, f"picture\n3 × {CLIP_SIZE} × {CLIP_SIZE}", "data")}
    boxes["vit"] = Box(0, -3, "vision transformer\nblocks 4, 8, 12", "frozen")
    boxes["tokens"] = Box(2.4, -3, f"patch tokens\n{shape(tokens)}", "frozen")
    boxes["project"] = Box(4.8, -3, f"self-attention\n{shape(features[-1])}")
    for level, feature in enumerate(features[:-1]):
        boxes[f"stem{level}"] = Box(2.4, -level, f"stem\n{shape(feature)}")
        boxes[f"up{level}"] = Box(7.2, -level, f"join + residual\n{ups[level]}")
    arrows = [("in", "vit"), ("vit", "tokens"), ("tokens", "project"), ("project", "up2"), ("in", "stem0")]
    arrows += [("stem0", "stem1"), ("stem1", "stem2"), ("up2", "up1"), ("up1", "up0")]
    arrows += [(f"~stem{level}", f"up{level}") for level in range(3)]
    return boxes, arrows


def draw_clip(path: Path) -> None:
    boxes, arrows = clip_boxes()
    boxes["out"] = Box(9.6, 0, f"logits\n3 × {CLIP_SIZE // 2} × {CLIP_SIZE // 2}", "result")
    draw(boxes, [*arrows, ("up0", "out")], path, (9.6, 3.8))


def draw_pointclip(path: Path) -> None:
    boxes, arrows = clip_boxes()
    model = MODELS["pointclip"]("tiny", freeze_encoder=False).eval()
    half = CLIP_SIZE // 2
    prompts = model.prompt_stem(torch.zeros(1, 3, half, half))
    projected = [layer(prompt) for layer, prompt in zip(model.prompts, prompts, strict=True)]
    boxes["clicks"] = Box(12, 0, f"clicks +, clicks –,\nmask so far\n3 × {half} × {half}", "data")
    for level, prompt in enumerate(projected):
        boxes[f"prompt{level}"] = Box(9.6, -1 - level, f"prompt stem\n{shape(prompt)}")
    arrows += [("clicks", "prompt0"), ("prompt0", "prompt1"), ("prompt1", "prompt2")]
    arrows += [("~prompt0", "up1"), ("~prompt1", "up2")]
    boxes["compare"] = Box(7.2, -3, f"compare with tokens\nunder the clicks\n{shape(projected[-1])}")
    arrows.remove(("project", "up2"))
    arrows += [("project", "compare"), ("~prompt2", "compare"), ("compare", "up2")]
    boxes["out"] = Box(9.6, 0, f"weights by click\n1 × {half} × {half}", "result")
    draw(boxes, [*arrows, ("up0", "out"), ("~clicks", "out")], path, (12, 3.9))


def draw_flow(path: Path) -> None:
    """From the files to the table."""
    steps = {
        "files": ("files\npictures, masks", "data"),
        "cache": ("Dataset\nuint8, decoded once", "data"),
        "augment": ("augmentation\nwhole batches", "trained"),
        "model": ("model\nlogits", "trained"),
        "loss": ("cross-entropy\n+ soft Dice", "trained"),
        "weights": ("checkpoint\nEMA, best on val", "result"),
        "test": ("test split, logits at\nthe masks' own size", "trained"),
        "matrix": ("confusion matrix\nof all pixels", "result"),
        "table": ("CSV → table,\nfigures", "result"),
    }
    columns = (0, 1, 2, 2, 1, 0, 0, 1, 2)  # there, back, and there again
    boxes = {
        name: Box(2.4 * columns[place], -1.1 * (place // 3), *step) for place, (name, step) in enumerate(steps.items())
    }
    draw(boxes, list(pairwise(steps)), path, (6, 2.8))


# file name -> function
DIAGRAMS = {
    "flow": draw_flow,
    "model_unet": draw_unet,
    "model_autoencoder": draw_autoencoder,
    "model_clip": draw_clip,
    "model_pointclip": draw_pointclip,
}
