"""Which top-down networks of mmpose reach INT8, and what stops the others."""

import multiprocessing
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from posequant.base.errors import InputError
from posequant.base.model_spec import ModelSpec
from posequant.ncnn_format.model import MATRICES, Layer, NcnnModel, is_grouped, read_param, weight_slots
from posequant.workflow.settings.export import Export

STAGES = (
    *("describe", "make weights", "make crops", "export", "audit", "simplify", "convert to ncnn"),
    *("calibrate", "quantize", "split deconvolutions", "compare", "evaluate", "convert to OpenVINO"),
)
"""What a network goes through, in order."""

_IMAGES, _CROPS = 8, 8

# A path from the root: what stands before the name of the file says nothing to a reader on another machine.
_FOLDERS = re.compile(r"(?<![\w.:/])/\S*/")


@dataclass
class Record:
    """How far one network came.

    Attributes:
        config: name of its mmpose config.
        codec: type of the codec that decodes its output.
        input_size: width and height of a crop in pixels.
        parameters: how many numbers were initialised at random.
        onnx_nodes: operators of the simplified ONNX graph.
        ncnn_layers: layers of the ncnn model.
        sqnr_db: of ncnn's output against ONNX Runtime's on crops that are not calibrated on, by precision; `split` is
            INT8 with deconvolutions as convolutions, where any can be. None where the precision is refused, because
            ncnn computes garbage.
        work: share of the multiply-accumulates of layers with weights that is INT8, from 0 to 1, as for `sqnr_db`.
        quantized: names of the layers that are INT8, with nothing split.
        kept_float: how many layers with weights are not, by their kind.
        people: how many were evaluated, with the flip test, in fp32 and INT8.
        seconds: processor time of each stage that ended.
        failed: the stage that stopped it; empty if none did.
        reason: why it did.
    """

    config: str
    codec: str = ""
    input_size: tuple[int, int] = (0, 0)
    parameters: int = 0
    onnx_nodes: int = 0
    ncnn_layers: int = 0
    sqnr_db: dict[str, float | None] = field(default_factory=dict)
    work: dict[str, float] = field(default_factory=dict)
    quantized: list[str] = field(default_factory=list)
    kept_float: dict[str, int] = field(default_factory=dict)
    people: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    failed: str = ""
    reason: str = ""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; remember the one that raises."""
        start = _processor_seconds()
        self.failed = name
        yield
        self.seconds[name] = round(_processor_seconds() - start, 1)
        self.failed = ""


def _processor_seconds() -> float:
    """Return how long this process and those that it waited for have computed, on all their threads."""
    return sum(os.times()[:4])


def survey(config: str) -> Record:
    """Take one network, with random weights, through every stage, in a temporary folder.

    Args:
        config: path, or name of a config that mmpose ships.

    Returns:
        The record; where a stage raises an `InputError` or mmpose or mmdeploy fail, with its name and the reason.
    """
    record = Record(Path(config).stem)
    with TemporaryDirectory() as folder:
        try:
            _take_through(record, config, Path(folder))
        except InputError as error:
            record.reason = _FOLDERS.sub("", str(error))
        except Exception as error:  # upstream's code, on networks that it was not tried on
            record.reason = _FOLDERS.sub("", f"{type(error).__name__}: {error}".strip().partition("\n")[0])
    return record


def survey_all(configs: Sequence[str]) -> list[Record]:
    """Return the record of each of `configs`, every one made in a process of its own, which may die."""
    records = []
    for config in tqdm(configs, desc="networks", unit="network", mininterval=1):
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            try:
                records.append(pool.submit(survey, config).result())
            except BrokenProcessPool:
                records.append(Record(Path(config).stem, failed="unknown", reason="the process died"))
    return records


def _take_through(record: Record, config: str, folder: Path) -> None:
    from posequant.base.files import write_json
    from posequant.data.calibration_set import choose_calibration_set, make_crops
    from posequant.data.crop_files import load_crops
    from posequant.demo.scenes import write_dataset
    from posequant.evaluate.keypoint_metrics import evaluate_predictions
    from posequant.evaluate.predict import make_predictions
    from posequant.export.audit import audit, traced_operators
    from posequant.export.convert import convert_to_ncnn, convert_to_openvino
    from posequant.export.describe import describe_mmpose
    from posequant.export.export import export_verified, write_deploy_config
    from posequant.export.simplify import simplify_verified
    from posequant.quantize.ncnn2int8 import quantize_files
    from posequant.quantize.ncnn2table import write_table
    from posequant.survey.random_weights import write_random_checkpoint

    data = folder / "data"
    checkpoint, deploy_config = folder / "checkpoint.pth", folder / "deploy_config.py"
    exported, simplified = folder / "exported.onnx", folder / "simplified.onnx"
    ncnn = folder / "fp32.param", folder / "fp32.bin"
    int8 = folder / "int8.param", folder / "int8.bin"
    rewritten = folder / "rewritten.param", folder / "rewritten.bin"
    rewritten_int8 = folder / "rewritten_int8.param", folder / "rewritten_int8.bin"

    with record.stage("describe"):
        spec = describe_mmpose(record.config, config)
        record.codec, record.input_size = spec.codec["type"], spec.input_size
        spec.save(folder / "model.json")
    with record.stage("make weights"):
        record.parameters = write_random_checkpoint(config, 0, checkpoint)
    train, val = (data / "annotations" / f"person_keypoints_{split}.json" for split in ("train", "val"))
    with record.stage("make crops"):
        write_dataset(data, {"train": _IMAGES, "val": _IMAGES}, seed=0)
        for people, others, split in ((train, val, "train"), (val, train, "val")):
            write_json(folder / f"{split}.json", choose_calibration_set(people, others, _CROPS, seed=0))
            make_crops(folder / "model.json", folder / f"{split}.json", data / split, folder / f"{split}_crops")
        crops, unseen = load_crops(folder / "train_crops", 2), load_crops(folder / "val_crops")
    with record.stage("export"):
        write_deploy_config(spec, Export(), deploy_config)
        with traced_operators() as traced:
            export_verified(config, checkpoint, deploy_config, spec=spec, crops=crops, target=exported)
    with record.stage("audit"):
        audit(exported, traced)
    with record.stage("simplify"):
        operators = simplify_verified(exported, crops, simplified)["nodes_after"]
        record.onnx_nodes = sum(count for operator, count in operators.items() if operator != "Constant")
    with record.stage("convert to ncnn"):
        convert_to_ncnn(simplified, spec, crops, "fp32", out=ncnn)
        record.ncnn_layers = len(read_param(ncnn[0]))
    with record.stage("calibrate"):
        write_table(folder / "table", *ncnn, folder / "train_crops", "kl", threads=2)
    with record.stage("quantize"):
        record.quantized = quantize_files(*ncnn, folder / "table", *int8)
        record.work["int8"], record.kept_float = _work_in_int8(int8, spec), _kept_float(read_param(int8[0]))
    networks = {"fp32": ncnn, "bf16": ncnn, "int8": int8}
    with record.stage("split deconvolutions"):
        if _split(ncnn, crops, rewritten):
            write_table(folder / "rewritten_table", *rewritten, folder / "train_crops", "kl", threads=2)
            quantize_files(*rewritten, folder / "rewritten_table", *rewritten_int8)
            record.work["split"] = _work_in_int8(rewritten_int8, spec)
            networks["split"] = rewritten_int8
    with record.stage("compare"):
        record.sqnr_db = _compare(spec, simplified, networks, unseen)
    with record.stage("evaluate"):
        for precision, files in (("fp32", ncnn), ("int8", int8)):
            predictions = make_predictions(
                model=folder / "model.json",
                variant=precision,
                backend="ncnn",
                precision=precision,
                artifacts=files,
                images=data / "val",
                annotations=val,
                detections=None,
                flip_test=True,
                threads=2,
            )
            predictions.save(folder / f"{precision}.npz")
            evaluate_predictions(folder / f"{precision}.npz", val)
            record.people = len(predictions.ids)
    with record.stage("convert to OpenVINO"):
        convert_to_openvino(simplified, spec, crops, folder / "openvino.xml")


def _compare(
    spec: ModelSpec, onnx: Path, networks: Mapping[str, tuple[Path, Path]], crops: NDArray[np.float32]
) -> dict[str, float | None]:
    """Return the SQNR in dB of ncnn's networks against ONNX Runtime, by their names; None where one is refused."""
    from posequant.base.verify import compare, run_onnx
    from posequant.networks.opening import open_network

    reference = run_onnx(onnx, crops)
    found: dict[str, float | None] = {}
    for name, files in networks.items():
        precision = "int8" if name == "split" else name
        try:
            outputs = open_network("ncnn", precision, files, spec).forward(crops)
            found[name] = compare(reference, outputs).sqnr_db
        except InputError as error:
            if not any(reason in str(error) for reason in ("NaN or infinity", "not finite", "wrongly in")):
                raise
            found[name] = None
    return found


def _split(ncnn: tuple[Path, Path], crops: NDArray[np.float32], out: tuple[Path, Path]) -> bool:
    """Write a network as the step `split-deconvolutions` of a recipe makes it, and say whether that changes it."""
    from posequant.recipe.deconvolutions import split_deconvolutions
    from posequant.recipe.draft import Draft
    from posequant.workflow.settings.recipe import SplitDeconvolutionsStep

    draft = Draft.of(NcnnModel.read(*ncnn))
    rewritten = split_deconvolutions(draft, list(crops), 1, SplitDeconvolutionsStep())
    rewritten.model.write(*out)
    return rewritten is not draft


def _work_in_int8(files: tuple[Path, Path], spec: ModelSpec) -> float:
    """Return which share of the multiply-accumulates of an INT8 network's layers with weights is INT8."""
    from posequant.networks.ncnn import NcnnNetwork
    from posequant.networks.ncnn_layers import describe_layers, totals

    records = describe_layers(NcnnModel.read(*files), NcnnNetwork(*files, "int8", spec.input_shape))
    share: float = totals(records)["int8"]
    return share


def _kept_float(layers: Sequence[Layer]) -> dict[str, int]:
    """Return how many layers of an INT8 network have weights that are not INT8, by their kind."""
    kept = (layer for layer in layers if not layer.int8_term and MATRICES & {slot.name for slot in weight_slots(layer)})
    kinds = Counter("grouped convolution" if is_grouped(layer) else layer.type for layer in kept)
    return dict(kinds.most_common())


# What a recipe does about a kind of layer that ncnn2int8 leaves in float.
_KINDS = {
    "Deconvolution": "ncnn has no INT8 for it. `split-deconvolutions` writes it as convolutions, which have it.",
    "DeconvolutionDepthWise": "ncnn has no INT8 for it. `split-deconvolutions: {depthwise: true}` writes it as "
    "convolutions where it has a group for each channel.",
    "grouped convolution": "ncnn computes it wrongly in INT8 (and in bf16, which is refused for such networks). It "
    "stays in float in recipes, too.",
}
_UNKNOWN = "PoseQuant does not calibrate it."


def markdown(records: Sequence[Record]) -> str:
    """Return a page with a table of the networks that reach INT8, one of the others, and the times."""
    from posequant.base.markdown import table
    from posequant.base.processor import this_processor
    from posequant.base.verify import versions

    done = [record for record in records if not record.failed]
    stopped = [record for record in records if record.failed]
    packages = versions("torch", "mmpose", "mmdeploy", "onnxruntime", "pnnx", "ncnn", "openvino")
    parts = [
        _INTRODUCTION,
        f"{len(done)} of {len(records)} reach INT8, with "
        f"{', '.join(f'{package} {version}' for package, version in packages.items())}.",
    ]
    if done:
        parts += ["## Networks that reach INT8", table(_done(record) for record in done), _LEGEND]
        kinds = sorted({kind for record in done for kind in record.kept_float})
        parts += [
            "### Left in float",
            _LEFT,
            table({"Layer": kind, "Why, and what a recipe does": _KINDS.get(kind, _UNKNOWN)} for kind in kinds),
        ]
    if stopped:
        parts += ["## Stopped", _STOPPED, table(_stopped(record) for record in stopped)]
    parts += [
        "## Sizes and times",
        f"Seconds of processor time that each stage takes. The processor: {this_processor().name}.",
        table(_details(record) for record in records),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_INTRODUCTION = """# Which networks work

*Made by `make survey`; not to be edited.*

Each config goes through every stage, with nothing given but its name: it is built by mmpose with random weights,
exported by mmdeploy, simplified, converted to ncnn and OpenVINO, calibrated, quantized, and evaluated with the flip
test on drawn people. A conversion whose output differs stops there. To try another config:

```sh
.venv/bin/python scripts/survey.py --configs NAME_OR_PATH --out page.md
```"""

_LEGEND = f"""- **FP32, BF16, INT8**: how well ncnn agrees with ONNX Runtime, as signal-to-noise ratio of the raw
  output, on {_CROPS} people that were not calibrated on. Two runtimes in float32 agree to 100 dB and more; 80 dB are
  required. *refused*: ncnn's output is wrong in this precision, and `ncnn-bf16` stops with a message.
- **The INT8 figures show that a network is quantized correctly, not what quantization costs.** The weights are random,
  with batch norm statistics of drawn people. Run a study to measure what a trained network loses. Deep or unusual
  networks have the lowest figures: the channels of one layer differ in size by a factor of a hundred.
- **INT8 layers**: how many of the layers with weights the variant `ncnn-int8` has in INT8. **In float**: the others.
  **Work in INT8**: the share of the multiply-accumulates of all layers with weights that is in INT8.
- **split**: the same where the step `split-deconvolutions` of a recipe first writes deconvolutions as convolutions.
  Empty where it changes nothing."""

_LEFT = """Layers without weights (sums, upsampling, activations, the products inside attention as mmdeploy exports it)
are always computed in float. Of the layers with weights, `ncnn-int8` leaves these in float:"""

_STOPPED = """\
The table names the stage that stops each network, and why. A study can still use the backends that do not need that
stage. Exports use opset 11; `export: {opset: 13}` in a study changes it."""


def _done(record: Record) -> dict[str, str]:
    layers = len(record.quantized), sum(record.kept_float.values())
    return {
        "Config": f"`{record.config}`",
        "Codec": record.codec,
        "Input": "x".join(map(str, record.input_size)),
        "Parameters": f"{record.parameters / 1e6:.2f} M",
        **{precision.upper(): _decibel(record.sqnr_db[precision]) for precision in ("fp32", "bf16", "int8")},
        "INT8, split": _decibel(record.sqnr_db["split"]) if "split" in record.sqnr_db else "",
        "INT8 layers": f"{layers[0]} of {sum(layers)}",
        "In float": ", ".join(f"{count} {kind}" for kind, count in record.kept_float.items()),
        "Work in INT8": f"{record.work['int8']:.0%}",
        "split": f"{record.work['split']:.0%}" if "split" in record.work else "",
    }


def _decibel(sqnr_db: float | None) -> str:
    return "refused" if sqnr_db is None else f"{sqnr_db:.1f} dB"


def _stopped(record: Record) -> dict[str, str]:
    reason = record.reason.replace("|", "\\|").replace("\n", " ")
    return {"Config": f"`{record.config}`", "Codec": record.codec, "Stage": record.failed, "Reason": reason}


def _details(record: Record) -> dict[str, str]:
    return {
        "Config": f"`{record.config}`",
        "ONNX operators": str(record.onnx_nodes or ""),
        "ncnn layers": str(record.ncnn_layers or ""),
        **{stage: f"{record.seconds[stage]:.1f}" if stage in record.seconds else "" for stage in STAGES},
        "sum": f"{sum(record.seconds.values()):.0f}",
    }
