"""Write a trained model as ONNX, to be run without PyTorch: by onnxruntime, in a browser, on a phone.

    pip install -r requirements-export.txt
    python export.py --MODEL=clip --OUT=clip.onnx               # half a minute; unet and autoencoder likewise
    python export.py --MODEL=unet --INT8=True                   # half the size; twice as fast on a CPU with VNNI
    python export.py --MODEL=pointclip --OUT=pointclip.onnx     # pointclip_encoder.onnx and pointclip_decoder.onnx

Resizing and normalisation are part of the file:

    picture        uint8 (batch, height, width, 3), RGB, of any size
    ids            uint8 (batch, height, width)
    probabilities  float32 (batch, classes, height, width)

The ids are those of predict.py --ZOOM=False, except for less than one pixel in a thousand, as a few resized pixels
differ by one grey level. The metadata holds row, classes and image_size, and a row by class's colours, each as JSON.

PointCLIP becomes two files: the encoder runs once per picture, the decoder once per click. A further click may change
the mask anywhere; predict.py changes only the connected region under the click.

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
import tempfile
import warnings
from collections.abc import Sequence
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

MODEL = "unet"  # a row by class or by click, e.g. "unet", "autoencoder", "clip", "pointclip"
OUT = ""  # file; empty: MODEL.onnx
INT8 = False  # 8-bit convolutions, for rows by class; calibrated on training pictures of DATA_ROOT
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
    row = load_row(name, CHECKPOINTS, torch.device("cpu"), zoom=False)
    if INT8 and row.prompt:
        raise UserError(f"INT8 = True: {name} is not a row by class")
    calibration = [sample.image for sample in subset(list_samples(DATA_ROOT, "train"), 200)] if INT8 else []
    graphs = {"_encoder": ClickEncoder(row), "_decoder": ClickDecoder(row)} if row.prompt else {"": ClassGraph(row)}
    metadata = {"row": row.name, "image_size": row.image_size, "classes": row.counted}
    if not row.prompt:
        metadata["colours"] = row.classes.colours
    out = Path(OUT or f"{MODEL}.onnx")
    files = {out.with_stem(out.stem + part): to_onnx(graph, metadata) for part, graph in graphs.items()}
    for path, data in files.items():
        data = to_int8(data, calibration) if INT8 else data
        with replacing(path) as temporary:
            temporary.write_bytes(data)
        print(f"wrote {path} ({len(data) / 1e6:.1f} MB)")
    print(f"{', '.join(row.counted)}; `python export.py --help` says how to use it")


# ------------------------------------------------------------------------------------------------ graphs
# A graph is a module with the names of its inputs and outputs, the axes of its inputs that may have any length, as
# torch.export takes them, and draw(batch, height, width), which returns random inputs.

_PICTURE = {0: "batch", 1: "height", 2: "width"}


def draw_picture(batch: int, height: int, width: int) -> tuple[torch.Tensor]:
    return (torch.randint(256, (batch, height, width, 3), dtype=torch.uint8),)


def squash(picture: torch.Tensor, size: int) -> torch.Tensor:
    """Picture uint8 (N, H, W, 3) -> uint8 (N, 3, S, S), as Pillow's BILINEAR: first the width, then the height.

    Pillow's weights have 22 bits: values halfway between two grey levels may be rounded the other way.
    """
    image = picture.movedim(3, 1).float()
    for shape in ((image.shape[2], size), (size, size)):
        image = (F.interpolate(image, shape, mode="bilinear", antialias=True) + 0.5).floor()
    return image.to(torch.uint8)


class ClassGraph(nn.Module):
    """A row by class: picture uint8 (N, H, W, 3) -> ids uint8 (N, H, W) and probabilities (N, classes, H, W)."""

    inputs, outputs, axes = ("picture",), ("ids", "probabilities"), (_PICTURE,)
    draw = staticmethod(draw_picture)

    def __init__(self, row: Row):
        super().__init__()
        self.row, self.model, self.size = row, row.model, max(row.sizes)

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, _ = look(self.model, squash(picture, self.size), self.row.mean, self.row.std, sizes=self.row.sizes)
        logits = F.interpolate(logits, size=picture.shape[1:3], mode="bilinear", align_corners=False)
        return logits.argmax(1).to(torch.uint8), logits.softmax(1)


class ClickEncoder(nn.Module):
    """A row by click: picture uint8 (N, H, W, 3) -> feature maps of the model's encode(), finest first."""

    inputs, axes = ("picture",), (_PICTURE,)
    draw = staticmethod(draw_picture)

    def __init__(self, row: Row):
        super().__init__()
        self.row, self.model, self.outputs = row, row.model, feature_names(row)

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.model.encode(normalise(squash(picture, self.row.image_size), self.row.mean, self.row.std)))


class ClickDecoder(nn.Module):
    """Clicks, size, previous and the encoder's feature maps -> mask, probabilities and the next `previous`.

    clicks: (N, K, 3), x and y in pixels of the picture as given; 1 on the thing, 0 on the rest, -1 for no click.
    size: int64 (2,), height and width of the picture. previous: probabilities (N, 1, S / 2, S / 2) without the last
    click, 0 before the first. mask: bool (N, H, W); probabilities: (N, H, W).
    """

    outputs = ("mask", "probabilities", "low_resolution")

    def __init__(self, row: Row):
        super().__init__()
        self.model, self.side, names = row.model, row.image_size, feature_names(row)
        self.inputs = ("clicks", "size", "previous", *names)
        self.axes = ({0: "batch", 1: "clicks"}, {}, {0: "batch"}, ({0: "batch"},) * len(names))

    def draw(self, batch: int, height: int, width: int) -> tuple[torch.Tensor, ...]:
        features = self.model.encode(torch.randn(batch, 3, self.side, self.side))
        clicks = torch.rand(batch, batch + 1, 3) * torch.tensor([width, height, 2])
        return clicks.floor(), torch.tensor([height, width]), torch.rand_like(features[0][:, :1]), *features

    def forward(
        self, clicks: torch.Tensor, size: torch.Tensor, previous: torch.Tensor, *features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        height, width = size.tolist()
        torch._check(height > 0)  # torch.export cannot know the values of a tensor
        torch._check(width > 0)
        places = (clicks[..., :2] + 0.5) / size.flip(0)
        logits = self.model.decode(list(features), torch.cat([places, clicks[..., 2:]], 2), previous)
        full = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)[:, 0]
        return full.sigmoid() > 0.5, full.sigmoid(), logits.sigmoid()


def feature_names(row: Row) -> tuple[str, ...]:
    features = row.model.encode(torch.zeros(1, 3, row.image_size, row.image_size))
    return tuple(f"features_{level}" for level in range(len(features)))


# ------------------------------------------------------------------------------------------------- files


@torch.no_grad()
def to_onnx(graph: nn.Module, metadata: dict) -> bytes:
    """The ONNX file of a graph. Raises UserError if onnxruntime and PyTorch disagree on it."""
    import onnx

    graph.eval()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "# The axis name", UserWarning)  # one name for equal axes is intended
        names = {"input_names": graph.inputs, "output_names": graph.outputs, "dynamic_shapes": graph.axes}
        options = {"dynamo": True, "opset_version": 20, "verbose": False}
        program = torch.onnx.export(graph, graph.draw(2, 50, 60), **names, **options)
    model = program.model_proto
    for node in model.graph.node:
        node.ClearField("metadata_props")  # paths of this machine
    del model.graph.value_info[:]
    for output in model.graph.output:
        for axis in output.type.tensor_type.shape.dim:
            if axis.dim_param.startswith("u"):  # torch.export's name of a length read from `size`
                axis.dim_param = {"u0": "height", "u1": "width"}[axis.dim_param]
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
    data = model.SerializeToString()
    check(data, graph)
    return data


def check(data: bytes, graph: nn.Module) -> None:
    """Raise UserError unless the file is valid and agrees with PyTorch on inputs of another size."""
    import onnx
    import onnxruntime

    onnx.checker.check_model(data, full_check=True)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    inputs = graph.draw(3, 75, 41)
    given = {name: value.numpy() for name, value in zip(graph.inputs, inputs, strict=True)}
    expected = graph(*inputs)
    for name, values, reference in zip(graph.outputs, session.run(None, given), expected, strict=True):
        off = np.abs(values.astype(np.float32) - reference.float().numpy()) > 0.01
        if off.mean() > 0.001:
            raise UserError(f"{off.mean():.1%} of {name} differ between onnxruntime and PyTorch: nothing was written")


def to_int8(data: bytes, pictures: Sequence[Path]) -> bytes:
    """The file with 8-bit convolutions: static, per channel, onnxruntime's QDQ format.

    pictures: for calibration, which measures the ranges of the feature maps.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Pictures(quantization.CalibrationDataReader):
        inputs = ({"picture": read_image(file)[None]} for file in pictures)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.inputs, None)

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


if __name__ == "__main__":
    run_script(main)
