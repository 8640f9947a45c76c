"""Write a trained model as ONNX, to be run without PyTorch: by onnxruntime, in a browser, on a phone.

    pip install -r requirements-export.txt
    python export.py --MODEL=clip --OUT=clip.onnx               # half a minute; unet and autoencoder likewise
    python export.py --MODEL=unet --INT8=True                   # half as large; twice as fast on a CPU with VNNI
    python export.py --MODEL=pointclip --OUT=pointclip.onnx     # pointclip_encoder.onnx and pointclip_decoder.onnx

The file takes a picture as it is and gives the ids of predict.py at the picture's size:

    picture        uint8 (batch, height, width, 3), RGB
    ids            uint8 (batch, height, width)
    probabilities  float32 (batch, classes, height, width)

Row, classes, colours and image_size are in the file's metadata, each as JSON. No file looks closer at what it found, as
predict.py does. PointCLIP becomes two files: the encoder runs once per picture, the decoder once per click. Its mask is
that of predict.py --ZOOM=False for the first click only: a further click may change it anywhere, in predict.py only in
the connected region that the click is in.

    import numpy as np
    import onnxruntime
    from PIL import Image

    encoder = onnxruntime.InferenceSession("pointclip_encoder.onnx")
    decoder = onnxruntime.InferenceSession("pointclip_decoder.onnx")
    picture = np.array(Image.open("photo.jpg").convert("RGB"))[None]  # uint8 (1, height, width, 3)
    names = [output.name for output in encoder.get_outputs()]
    inputs = dict(zip(names, encoder.run(None, {"picture": picture})))  # feature maps, finest first
    inputs["size"] = np.array(picture.shape[1:3], np.int64)
    inputs["previous"] = np.zeros_like(inputs["features_0"][:, :1])  # nothing is known before the first click
    clicks = []
    for click in [(210, 140, 1), (30, 40, 0)]:  # x and y in pixels; 1 on the thing, 0 on the rest
        clicks.append(click)
        inputs["clicks"] = np.array([clicks], np.float32)  # (1, K, 3): all clicks so far
        mask, probabilities, inputs["previous"] = decoder.run(None, inputs)  # the first two (1, height, width)
    Image.fromarray(mask[0]).save("mask.png")
"""

import json
import math
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.config import DATA, run_script

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from utils.errors import UserError
from utils.files import replacing
from utils.inputs.augment import normalise
from utils.inputs.layouts import list_samples, subset
from utils.inputs.pictures import read_image
from utils.rows import find_rows, load_row, row_named
from utils.rows.by_class import look
from utils.rows.row import Row

MODEL = "unet"  # any row of the table by class or by click, e.g. "unet", "autoencoder", "clip", "pointclip"
OUT = ""  # file; empty: MODEL.onnx
INT8 = False  # of a row by class: convolutions in 8 bits, calibrated on training pictures of DATA_ROOT
DATA_ROOT = DATA  # any layout of data/README.md
CHECKPOINTS = "checkpoints"  # where the training scripts wrote


def main() -> None:
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is missing: pip install -r requirements-export.txt") from error
    name = row_named(MODEL, CHECKPOINTS)
    if find_rows(CHECKPOINTS)[name].kind.prompt == "text":
        raise UserError(f"{name} cannot be exported: its classes are texts, and ONNX has no tokenizer")
    row = load_row(name, CHECKPOINTS, torch.device("cpu"))
    if INT8 and row.prompt:
        raise UserError(f"INT8 = True: {name} is not a row by class")
    calibration = subset(list_samples(DATA_ROOT, "train"), 200) if INT8 else ()
    graphs = click_graphs(row) if row.prompt else {"": class_graph(row)}
    metadata = {"row": row.name, "image_size": row.image_size, "classes": row.counted}
    if not row.prompt:
        metadata["colours"] = row.classes.colours
    out = Path(OUT or f"{MODEL}.onnx")
    files = {out.with_stem(out.stem + part): to_onnx(graph, metadata) for part, graph in graphs.items()}
    for path, data in files.items():
        data = to_int8(data, [sample.image for sample in calibration]) if INT8 else data
        with replacing(path) as temporary:
            temporary.write_bytes(data)
        print(f"wrote {path} ({len(data) / 1e6:.1f} MB)")
    print(f"{', '.join(row.counted)}; `python export.py --help` says how to use it")


# ------------------------------------------------------------------------------------------------- files


@dataclass
class Graph:
    """A module to be written as one file."""

    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dynamic_shapes: tuple  # the inputs' axes of any length, as torch.export takes them
    draw: Callable[[int, int, int], tuple[torch.Tensor, ...]]  # batch, height, width -> random inputs


def class_graph(row: Row) -> Graph:
    axes = {0: "batch", 1: "height", 2: "width"}
    return Graph(ClassGraph(row), ("picture",), ("ids", "probabilities"), (axes,), draw_picture)


def click_graphs(row: Row) -> dict[str, Graph]:
    """The two files of a row by click: suffix of the file's name -> graph."""
    model, side = row.model, row.image_size

    def draw_clicks(batch: int, height: int, width: int) -> tuple[torch.Tensor, ...]:
        features = model.encode(torch.randn(batch, 3, side, side))
        clicks = torch.rand(batch, batch + 1, 3) * torch.tensor([width, height, 2])
        return clicks.floor(), torch.tensor([height, width]), torch.rand_like(features[0][:, :1]), *features

    count = len(draw_clicks(1, 1, 1)) - 3
    names = tuple(f"features_{level}" for level in range(count))
    picture, any_number = {0: "batch", 1: "height", 2: "width"}, {0: "batch"}
    shapes = ({0: "batch", 1: "clicks"}, {}, any_number, (any_number,) * count)
    inputs, outputs = ("clicks", "size", "previous", *names), ("mask", "probabilities", "low_resolution")
    return {
        "_encoder": Graph(ClickEncoder(row), ("picture",), names, (picture,), draw_picture),
        "_decoder": Graph(ClickDecoder(model), inputs, outputs, shapes, draw_clicks),
    }


def draw_picture(batch: int, height: int, width: int) -> tuple[torch.Tensor]:
    return (torch.randint(256, (batch, height, width, 3), dtype=torch.uint8),)


@torch.no_grad()
def to_onnx(graph: Graph, metadata: dict) -> bytes:
    """The ONNX file of a graph, checked. Raises UserError if it does not give what PyTorch gives."""
    import onnx

    graph.module.eval()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "# The axis name", UserWarning)  # one name for equal axes is intended
        names = {"input_names": graph.inputs, "output_names": graph.outputs, "dynamic_shapes": graph.dynamic_shapes}
        options = {"dynamo": True, "opset_version": 20, "verbose": False}
        program = torch.onnx.export(graph.module, graph.draw(2, 50, 60), **names, **options)
    model = program.model_proto
    for node in model.graph.node:
        node.ClearField("metadata_props")  # paths of this machine
    del model.graph.value_info[:]
    for output in model.graph.output:
        for axis in output.type.tensor_type.shape.dim:
            if axis.dim_param.startswith("u"):  # torch.export's own name of a length that was in a tensor
                axis.dim_param = {"u0": "height", "u1": "width"}[axis.dim_param]
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
    data = model.SerializeToString()
    check(data, graph)
    return data


def check(data: bytes, graph: Graph) -> None:
    """Raise UserError unless the file is valid and gives what PyTorch gives, on a batch of another size."""
    import onnx
    import onnxruntime

    onnx.checker.check_model(data, full_check=True)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    inputs = graph.draw(3, 75, 41)
    given = {name: value.numpy() for name, value in zip(graph.inputs, inputs, strict=True)}
    expected = graph.module(*inputs)
    for name, values, reference in zip(graph.outputs, session.run(None, given), expected, strict=True):
        off = np.abs(values.astype(np.float32) - reference.float().numpy()) > 0.01
        if off.mean() > 0.001:
            raise UserError(f"{off.mean():.1%} of {name} differ between onnxruntime and PyTorch: nothing was written")


def to_int8(data: bytes, pictures: Sequence[Path]) -> bytes:
    """The file with convolutions in 8 bits: static, per channel, in onnxruntime's QDQ format.

    pictures: of which the ranges of the feature maps are measured.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Pictures(quantization.CalibrationDataReader):
        def __init__(self):
            self.files = iter(pictures)

        def get_next(self) -> dict[str, np.ndarray] | None:
            file = next(self.files, None)
            return {"picture": read_image(file)[None]} if file else None

    with tempfile.TemporaryDirectory() as folder:
        plain, ready, small = (str(Path(folder) / name) for name in ("plain.onnx", "ready.onnx", "small.onnx"))
        Path(plain).write_bytes(data)
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        options = {"quant_format": quantization.QuantFormat.QDQ, "per_channel": True, "op_types_to_quantize": ["Conv"]}
        quantization.quantize_static(ready, small, Pictures(), **options)
        model = onnx.load(small)
    metadata = {prop.key: prop.value for prop in onnx.load_from_string(data).metadata_props}
    onnx.helper.set_model_props(model, metadata)
    return model.SerializeToString()


# ------------------------------------------------------------------------------------------------ modules


def squash(picture: torch.Tensor, size: int) -> torch.Tensor:
    """Picture uint8 (N, H, W, 3) -> uint8 (N, 3, S, S), squashed as Pillow does it."""
    count, height = picture.shape[:2]
    columns = resample(picture.movedim(2, 0).flatten(1), size)  # (S, N * H * 3)
    columns = columns.unflatten(1, (count, height, 3))
    rows = resample(columns.movedim(2, 0).flatten(1), size)  # (S, S * N * 3)
    return rows.unflatten(1, (size, count, 3)).permute(2, 3, 0, 1)


class ClassGraph(nn.Module):
    """A row by class: picture uint8 (N, H, W, 3) -> ids uint8 (N, H, W) and probabilities (N, classes, H, W)."""

    def __init__(self, row: Row):
        super().__init__()
        self.row, self.model, self.size = row, row.model, max(row.sizes)

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, _ = look(self.model, squash(picture, self.size), self.row.mean, self.row.std, sizes=self.row.sizes)
        logits = F.interpolate(logits, size=picture.shape[1:3], mode="bilinear", align_corners=False)
        return logits.argmax(1).to(torch.uint8), logits.softmax(1)


class ClickEncoder(nn.Module):
    """A row by click: picture uint8 (N, H, W, 3) -> feature maps of the model's encode(), finest first."""

    def __init__(self, row: Row):
        super().__init__()
        self.row, self.model = row, row.model

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.model.encode(normalise(squash(picture, self.row.image_size), self.row.mean, self.row.std)))


class ClickDecoder(nn.Module):
    """Clicks, size, previous and the encoder's feature maps -> mask, probabilities and the next `previous`.

    clicks: (N, K, 3), x and y in pixels of the picture as given; 1 on the thing, 0 on the rest, -1 for no click.
    size: int64 (2,), height and width of the picture. previous: probabilities (N, 1, S / 2, S / 2) without the last
    click, 0 before the first. mask: bool (N, H, W); probabilities: (N, H, W).
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(
        self, clicks: torch.Tensor, size: torch.Tensor, previous: torch.Tensor, *features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        height, width = size.tolist()
        torch._check(height > 0)  # what torch.export cannot know of a number that is in a tensor
        torch._check(width > 0)
        places = (clicks[..., :2] + 0.5) / size.flip(0)
        logits = self.model.decode(list(features), torch.cat([places, clicks[..., 2:]], 2), previous)
        full = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)[:, 0]
        return full.sigmoid() > 0.5, full.sigmoid(), logits.sigmoid()


def resample(values: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 (n, C) -> (size, C) along the first axis, to the last bit what Pillow's BILINEAR gives.

    A triangle filter with support max(n / size, 1), weights rounded to 22 bits, the sum rounded half up. (ONNX's own
    Resize with antialias=1 rounds otherwise in one of twenty pixels where n / size is a fraction like 4 / 5.)
    """
    count, tile = values.shape[0], math.gcd(size, 16)  # pixels of the result that share a window: few weights are 0
    scale = torch.scalar_tensor(count, dtype=torch.float64) / size
    support = scale.clamp(min=1)
    centres = ((torch.arange(size, dtype=torch.float64) + 0.5) * scale).view(-1, tile, 1)  # (windows, tile, 1)
    first = (centres[:, :1] - support).floor().clamp(min=0)
    window = first + torch.arange((tile + 1) * count // size + 4)  # (windows, 1, L): at least all within the support
    weights = (1 - (window + 0.5 - centres).abs() / support).clamp(min=0) * (window < count)  # (windows, tile, L)
    weights = (weights / weights.sum(2, keepdim=True) * 2**22 + 0.5).floor()
    inside = values[window[:, 0].long().clamp(max=count - 1)]  # (windows, L, C)
    total = (weights @ inside.double()).flatten(0, 1)  # whole numbers below 2**53: exact
    return (total / 2**22 + 0.5).floor().to(torch.uint8)


if __name__ == "__main__":
    run_script(main)
