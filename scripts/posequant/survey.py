"""Which top-down networks of mmpose go all the way to INT8, and what stops the others."""

import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from posequant.errors import InputError
from posequant.model_spec import ModelSpec

STAGES = (
    *("describe", "make weights", "make crops", "export", "audit", "simplify", "convert to ncnn"),
    *("calibrate", "quantize", "compare", "evaluate", "convert to OpenVINO"),
)
"""What a network goes through, in order."""

_IMAGES, _CROPS = 8, 8


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
        sqnr_db: of ncnn's output against ONNX Runtime's on crops that are not calibrated on, by precision; None where
            it is not finite.
        quantized: names of the layers that are INT8.
        kept_float: how many layers with weights are not, by the reason.
        people: how many were evaluated, with the flip test, in fp32 and INT8.
        seconds: time of each stage that ended.
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
    quantized: list[str] = field(default_factory=list)
    kept_float: dict[str, int] = field(default_factory=dict)
    people: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    failed: str = ""
    reason: str = ""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; remember the one that raises."""
        start = time.monotonic()
        self.failed = name
        yield
        self.seconds[name] = round(time.monotonic() - start, 1)
        self.failed = ""


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
            record.reason = str(error).replace(f"{folder}/", "")
        except Exception as error:  # upstream's code, on networks that it was not tried on
            record.reason = f"{type(error).__name__}: {error}".partition("\n")[0].replace(f"{folder}/", "")
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
    from posequant.calibration.calibrate import write_table
    from posequant.calibration_set import choose_calibration_set, make_crops
    from posequant.convert import convert_to_ncnn, convert_to_openvino
    from posequant.crop_files import load_crops
    from posequant.demo.people import write_dataset
    from posequant.describe import describe_mmpose
    from posequant.export import export_verified, write_deploy_config
    from posequant.files import write_json
    from posequant.keypoint_metrics import evaluate_predictions
    from posequant.ncnn_model import read_param
    from posequant.operators import audit
    from posequant.predict import make_predictions
    from posequant.quantize_ncnn import quantize_files
    from posequant.random_weights import write_random_checkpoint
    from posequant.simplify import simplify_verified

    data = folder / "data"
    checkpoint, deploy_config = folder / "checkpoint.pth", folder / "deploy_config.py"
    exported, simplified = folder / "exported.onnx", folder / "simplified.onnx"
    ncnn = folder / "fp32.param", folder / "fp32.bin"
    int8 = folder / "int8.param", folder / "int8.bin"

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
        write_deploy_config(spec, 11, "INT8", use_vulkan=False, target=deploy_config)
        export_verified(config, checkpoint, deploy_config, spec, crops, exported)
    with record.stage("audit"):
        audit(config, checkpoint, deploy_config, exported)
    with record.stage("simplify"):
        operators = simplify_verified(exported, crops, simplified)["nodes_after"]
        record.onnx_nodes = sum(count for operator, count in operators.items() if operator != "Constant")
    with record.stage("convert to ncnn"):
        convert_to_ncnn(simplified, spec, crops, "fp32", *ncnn)
        record.ncnn_layers = len(read_param(ncnn[0]))
    with record.stage("calibrate"):
        write_table(folder / "table", *ncnn, folder / "train_crops", "kl", threads=2)
    with record.stage("quantize"):
        record.quantized = quantize_files(*ncnn, folder / "table", *int8)
        record.kept_float = _kept_float(int8[0], record.quantized)
    with record.stage("compare"):
        record.sqnr_db = _compare(spec, simplified, ncnn, int8, unseen)
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
    spec: ModelSpec, onnx: Path, ncnn: tuple[Path, Path], int8: tuple[Path, Path], crops: NDArray[np.float32]
) -> dict[str, float | None]:
    """Return the SQNR in dB of ncnn in each precision against ONNX Runtime; None where an output is not finite."""
    from posequant.networks.opening import open_network
    from posequant.verify import compare, run_onnx

    reference = run_onnx(onnx, crops)
    found: dict[str, float | None] = {}
    for precision, files in (("fp32", ncnn), ("bf16", ncnn), ("int8", int8)):
        try:
            outputs = open_network("ncnn", precision, files, spec).forward(crops)
            found[precision] = compare(reference, outputs).sqnr_db
        except InputError as error:
            if "NaN or infinity" not in str(error):
                raise
            found[precision] = None
    return found


def _kept_float(param: Path, quantized: Sequence[str]) -> dict[str, int]:
    """Count the layers with weights that are not quantized, by the reason."""
    from posequant.calibration.weights import miscomputed
    from posequant.ncnn_model import read_param, weight_slots

    layers = read_param(param)
    grouped = set(miscomputed(layers))
    reasons = Counter(
        "grouped convolution, wrong in ncnn's INT8" if layer.name in grouped else f"{layer.type}, not calibrated"
        for layer in layers
        if layer.name not in quantized and any(slot.name in _MATRICES for slot in weight_slots(layer))
    )
    return dict(reasons.most_common())


# Names of the weights that a product is made with, as `weight_slots` calls them; others are biases and norms.
_MATRICES = {"weight", "a", "b", "q_weight"}


def markdown(records: Sequence[Record]) -> str:
    """Return a page with a table of the networks that went all the way, one of the others, and the times."""
    done = [_row(record) for record in records if not record.failed]
    stopped = [
        (f"`{record.config}`", record.codec, record.failed, record.reason) for record in records if record.failed
    ]
    seconds = [
        (f"`{record.config}`", *(f"{record.seconds[stage]:.1f}" if stage in record.seconds else "" for stage in STAGES))
        for record in records
    ]
    parts = [_INTRODUCTION]
    if done:
        parts += ["## All the way", _table(_HEADINGS, done), _NOTES]
    if stopped:
        parts += ["## Stopped", _table(("config", "codec", "stage", "reason"), stopped)]
    parts += ["## Seconds of each stage", _table(("config", *STAGES), seconds)]
    return "\n\n".join(parts) + "\n"


_INTRODUCTION = """# Which networks work

*Made by `make survey`, which takes configs of mmpose through every stage with random weights; not to be edited.*"""

_HEADINGS = (
    *("config", "codec", "input", "parameters", "ONNX operators", "ncnn layers", "fp32 dB", "bf16 dB", "INT8 dB"),
    *("INT8 layers", "layers in float"),
)

_NOTES = f"""fp32, bf16 and INT8: the signal-to-noise ratio of ncnn's output against ONNX Runtime's, on {_CROPS} drawn
people that are not among the {_CROPS} of the calibration. NaN: the network overflows in this precision. The weights are
random, with batch norm statistics of drawn people, so INT8 here tells whether a network is quantized correctly, and
little of what it loses once trained. Layers in float are those with weights of their own that are not INT8."""


def _row(record: Record) -> tuple[str, ...]:
    decibels = [record.sqnr_db[precision] for precision in ("fp32", "bf16", "int8")]
    return (
        f"`{record.config}`",
        record.codec,
        "x".join(map(str, record.input_size)),
        f"{record.parameters / 1e6:.2f} M",
        str(record.onnx_nodes),
        str(record.ncnn_layers),
        *("NaN" if value is None else f"{value:.1f}" for value in decibels),
        str(len(record.quantized)),
        "; ".join(f"{count} {reason}" for reason, count in record.kept_float.items()) or "none",
    )


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    from pandas import DataFrame

    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    table: str = DataFrame(cells, columns=list(headings)).to_markdown(index=False, disable_numparse=True)
    return table
