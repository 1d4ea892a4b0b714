"""What the steps of a study cost, in time and on the disk: a table of what was measured, for plans and estimates."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Billions of multiply-accumulates that one thread does in a second, by backend and precision: Hourglass52 at 256x256,
# one crop at a time, on a core of a 2-core x86 machine with AVX-512 and VNNI. `make scale` measures them again, and
# docs/scale.md has both: on AMD EPYC all agree but that of ONNX Runtime's INT8, which was a guess, and too low.
RATES = {
    ("pytorch", "fp32"): 46.0,
    ("onnxruntime", "fp32"): 55.0,
    ("onnxruntime", "int8"): 110.0,
    ("openvino", "fp32"): 56.0,
    ("openvino", "int8"): 222.0,
    ("ncnn", "fp32"): 104.0,
    ("ncnn", "fp16"): 104.0,
    ("ncnn", "bf16"): 118.0,
    ("ncnn", "int8"): 173.0,
    # A guess, as of the CPU: a GPU is faster, and a driver that computes on the CPU some twenty times as slow.
    ("ncnn-vulkan", "fp32"): 104.0,
    ("ncnn-vulkan", "fp16"): 104.0,
    ("ncnn-vulkan", "int8"): 104.0,
}
# People in an image that is drawn for the demo, about.
DRAWN = 1.5
# A shard of fewer people is not worth its start.
_LEAST_PEOPLE = 64
# `3-of-8`, and its log, `3-of-8.log`, which stays where the shard has been pruned.
_SHARD = re.compile(r"\d+-of-(\d+)(?:\..*)?")
# To normalise a crop and decode its output, in seconds.
BESIDE_THE_NETWORK = 0.003
# To cut a crop out of a photograph, in seconds.
CUT = 0.015
# Multiply-accumulates of a network, for each of its parameters and each pixel of its input: .0029 (RTMPose-m), .0032
# (SimpleBaseline, ResNet-50), .0034 (MobileNetV2), .0040 (ViTPose-B), .0046 (Hourglass52), .0055 (HRNet-w32).
_PER_PARAMETER_AND_PIXEL = 0.0040
_BYTES_PER_PARAMETER = 4
# Where nothing is known of a network: one of the size of SimpleBaseline with ResNet-50 at 256x192.
_USUAL_GMAC, _USUAL_BYTES, _USUAL_PIXELS = 5.4, 136e6, 192 * 256
_SIZE = re.compile(r"(\d{2,4})x(\d{2,4})")
_INPUT_SIZE = re.compile(r"input_size\s*=\s*[\[(]\s*(\d+)\s*,\s*(\d+)\s*[\])]")
# People and boxes of files that are known by their name, before they are there.
_KNOWN_PEOPLE = {
    "person_keypoints_val2017.json": 6352,
    "COCO_val2017_detections_AP_H_56_person.json": 104_125,
}
# How the file names a person that is evaluated, and a box.
_ANNOTATED = re.compile(rb'"num_keypoints"\s*:\s*[1-9]')
_BOX = re.compile(rb'"bbox"\s*:')


@dataclass(frozen=True)
class Step:
    """What a job of a rule takes, in seconds of one core.

    Attributes:
        alone: whatever it works on: start, imports, and what does not grow.
        per_100_mb: for each 100 MB of the network's weights.
        per_person: for each evaluated person; its threads share it.
        per_gmac: for each billion of multiply-accumulates of each calibration person; its threads share it.
        per_chosen: for each person that is chosen from the training split; its threads share it.
    """

    alone: float
    per_100_mb: float = 0.0
    per_person: float = 0.0
    per_gmac: float = 0.0
    per_chosen: float = 0.0


# Rules that are not listed take `_OTHER`. `predict` and `latency` take the network's own time as well.
STEPS = {
    "describe": Step(1.0),
    "demo_dataset": Step(0.5),
    "calibration_set": Step(1.0),
    "calibration_images": Step(60.0),
    "calibration_crops": Step(2.0),
    "evaluation_images": Step(120.0),
    "distillation_set": Step(1.5),
    "distillation_images": Step(2.0, per_chosen=0.5),
    "distillation_crops": Step(1.5, per_chosen=CUT),
    "evaluation_people": Step(1.5),
    "evaluation_crops": Step(1.5, per_person=CUT),
    "export": Step(5.0, per_100_mb=6.0),
    "import_onnx": Step(2.0, per_100_mb=3.0),
    "import_ncnn": Step(1.5, per_100_mb=2.0),
    "simplify": Step(2.0, per_100_mb=3.0),
    "convert_ncnn": Step(1.5, per_100_mb=4.0),
    "convert_openvino": Step(1.5, per_100_mb=3.0),
    "ncnn2table": Step(1.5, per_100_mb=1.0, per_gmac=0.03),
    "ncnn2int8": Step(1.0, per_100_mb=1.0),
    "apply_recipe": Step(3.0, per_100_mb=60.0, per_gmac=1.0),
    "quantize_openvino": Step(6.0, per_100_mb=4.0, per_gmac=0.02),
    "quantize_onnxruntime": Step(3.0, per_100_mb=5.0, per_gmac=0.03),
    "predict": Step(2.0, per_100_mb=1.0, per_person=BESIDE_THE_NETWORK),
    "evaluate": Step(1.5, per_person=0.0005),
    "certify": Step(3.0, per_100_mb=1.0, per_person=0.001),
    "pictures": Step(2.0, per_100_mb=1.0),
    "attribute": Step(2.0, per_100_mb=20.0, per_gmac=0.3),
    "layer_times": Step(2.0, per_100_mb=5.0),
    "render_attribution": Step(1.5),
    "latency": Step(8.0, per_100_mb=20.0),
    "collect_network": Step(1.0),
    "collect_result": Step(0.5),
    "render_report": Step(1.0),
    "render_result": Step(2.0),
    "result": Step(0.3),
}
_OTHER = Step(5.0)
# Bytes that a rule writes, for each byte of the network's weights.
_WEIGHTS = {
    "export": 1.0,
    "import_onnx": 1.0,
    "import_ncnn": 1.5,
    "simplify": 1.0,
    "convert_ncnn": 0.75,
    "convert_openvino": 1.0,
    "apply_recipe": 2.0,
    "ncnn2int8": 0.25,
    "quantize_openvino": 0.25,
    "quantize_onnxruntime": 0.25,
}
# Of a person, in `predict` and in `evaluate`.
_PREDICTION_BYTES = 300
_DRAWN_IMAGE_BYTES = 20_000
_PHOTOGRAPH_BYTES = 160_000
# How many times as much as a crop shows all crops of a person can see, about.
_WIDE = 4.0
# Seconds to draw an image.
_DRAWING = 0.012
# What is downloaded, and what is taken out of it, where its name tells. All else is not counted.
_KNOWN_BYTES = {
    "val2017.zip": 816e6,
    "val2017": 820e6,
    "annotations_trainval2017.zip": 253e6,
    "person_keypoints_train2017.json": 239e6,
    "person_keypoints_val2017.json": 10e6,
    "hourglass52_coco_256x256-4ec713ba_20200709.pth": 379e6,
    "hourglass52_coco_384x384-be91ba2b_20200812.pth": 379e6,
}
_BYTES_PER_SECOND = 10e6
# `latency`: rounds, and the seconds after which it begins no other; then as many inferences for throughput, about.
_ROUNDS, _MOST_SECONDS = 60, 20
_THROUGHPUT_ROUNDS = 8


@dataclass(frozen=True)
class Network:
    """What a network takes.

    Attributes:
        gmac: billions of multiply-accumulates for a crop.
        bytes: of its weights in float32.
        pixels: of a crop.
        measured: seconds that one thread takes for a crop, by row, where an earlier run measured them here.
    """

    gmac: float = _USUAL_GMAC
    bytes: float = _USUAL_BYTES
    pixels: int = _USUAL_PIXELS
    measured: Mapping[str, float] = field(default_factory=dict)

    def seconds(self, backend: str, precision: str) -> float:
        """Return how long one thread takes for a crop."""
        return self.gmac / RATES[backend, precision]


@dataclass(frozen=True)
class Work:
    """What a job works on.

    Attributes:
        network: the network, or a usual one where nothing is known of it.
        people: evaluated people.
        calibration: calibration people, or those who are chosen to distill on.
        images: to draw.
        rows: seconds that one thread takes for a person, of each row that is run.
        kept: whether the crops of evaluated people are kept.
    """

    network: Network
    people: int = 0
    calibration: int = 0
    images: int = 0
    rows: tuple[float, ...] = ()
    kept: bool = True


def row_seconds(variant: str, network: Network, config: Mapping[str, Any], study: str) -> float:
    """Return how long one thread takes for a person in a row of a study; `config` is the whole configuration."""
    row = config["variants"][variant]
    passes = 2 if config["studies"][study]["protocol"]["flip_test"] else 1
    return passes * (network.measured.get(variant) or network.seconds(row["backend"], row["precision"]))


def measured_rows(latency: Path) -> dict[str, float]:
    """Return how long one thread takes for a crop in each row, in seconds, as an earlier run measured it on some crops.

    Args:
        latency: what the step `latency` wrote; nothing is told by one that is not there, or of another version.
    """
    try:
        rows = json.loads(latency.read_text())["rows"]
        return {name: float(row["latency"]["median_ms"]) / 1000 for name, row in rows.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def network_of(*, weights: int | None, pixels: int | None, gmac: float | None) -> Network | None:
    """Return what a network takes, from what is known of it; None if that tells nothing of its arithmetic.

    Args:
        weights: size in bytes of the file of its weights, in float32.
        pixels: of a crop.
        gmac: billions of multiply-accumulates, where the user says so.
    """
    factor = _PER_PARAMETER_AND_PIXEL / _BYTES_PER_PARAMETER / 1e9
    if gmac is None:
        if weights is None or pixels is None:
            return None
        gmac = weights * pixels * factor
    pixels = pixels or _USUAL_PIXELS
    return Network(gmac, weights if weights is not None else gmac / pixels / factor, pixels)


def input_pixels(model: Mapping[str, Any], config: Path | None) -> int | None:
    """Return how many pixels a crop has; None where that cannot be told without building the network.

    Args:
        model: the settings of a model. An ONNX model has an `input_size`; of mmpose's names of configs, most end in it.
        config: the file of its mmpose config; `input_size=(...)` in its text tells as well.
    """
    if "input_size" in model:
        width, height = model["input_size"]
        return int(width * height)
    found = None
    if config is not None:
        found = _SIZE.findall(config.stem)[-1:]
        if not found and config.is_file():
            found = _INPUT_SIZE.findall(config.read_text(errors="replace"))[:1]
    return int(found[0][0]) * int(found[0][1]) if found else None


def people_in(annotations: Path, detections: Path | None) -> int | None:
    """Return how many people are evaluated, counted in the text of a file.

    None if it is not there yet, unless it is known by its name.

    Args:
        annotations: COCO keypoint annotations; people with a keypoint are evaluated.
        detections: COCO detection results, if their boxes are taken.
    """
    path, pattern = (annotations, _ANNOTATED) if detections is None else (detections, _BOX)
    if not path.is_file():
        return _KNOWN_PEOPLE.get(path.name)
    content = path.read_bytes()
    return sum(1 for _ in pattern.finditer(content))


def evaluated(everyone: int | None, annotated: int | None, wanted: int | None) -> int | None:
    """Return how many people, or detector boxes of them, are evaluated; None where that is not known.

    Args:
        everyone: how many there are, people or boxes.
        annotated: how many annotated people there are.
        wanted: how many annotated people a subset is to hold; None for all. Their images hold their share of the boxes.
    """
    if everyone is None or wanted is None:
        return everyone
    if not annotated:
        return None
    return min(everyone, round(wanted * everyone / annotated))


def number_of_shards(people: int, seconds: float, minutes: float, *, threads: int) -> int:
    """Return how many shards take about so many minutes each.

    Args:
        people: who are predicted.
        seconds: that one thread takes for a person.
        minutes: that a shard may take.
        threads: of a job.
    """
    return max(1, min(math.ceil(people * seconds / threads / (60 * minutes)), people // _LEAST_PEOPLE))


def shards_in(folders: Iterable[Path]) -> int | None:
    """Return the number of shards of which an earlier run left something, a log at least; None if none did.

    Of several numbers it is that of the newest file in the first of the folders that tells one.
    """
    for folder in folders:
        entries = folder.iterdir() if folder.is_dir() else ()
        named = [(path, shard) for path in entries if (shard := _SHARD.fullmatch(path.name))]
        if named:
            return max((path.stat().st_mtime_ns, int(shard[1])) for path, shard in named)[1]
    return None


def seconds_of(rule: str, work: Work) -> tuple[float, float]:
    """Return what a job of a rule takes on one core, in seconds: what it does alone, and what its threads share."""
    step = STEPS.get(rule, _OTHER)
    alone = step.alone + step.per_100_mb * work.network.bytes / 1e8
    shared = step.per_person * work.people + step.per_gmac * work.network.gmac * work.calibration
    shared += step.per_chosen * work.calibration
    if rule == "predict":
        shared += work.people * sum(work.rows)
    elif rule == "latency":
        alone += sum(min(_ROUNDS * seconds, _MOST_SECONDS) + _THROUGHPUT_ROUNDS * seconds for seconds in work.rows)
    elif rule == "demo_dataset":
        shared += _DRAWING * work.images
    return alone, shared


def bytes_of(rule: str, work: Work) -> tuple[str, float]:
    """Return what a job of a rule writes: what for, in a word, and how many bytes."""
    match rule:
        case "evaluation_crops":
            return "crops", crops_bytes(work.network, work.people) * work.kept
        case "calibration_crops":
            return "crops", 4 * crops_bytes(work.network, work.calibration)
        case "distillation_crops":
            return "crops", _WIDE * crops_bytes(work.network, work.calibration)
        case "distillation_images":
            return "images", _PHOTOGRAPH_BYTES * work.calibration
        case "predict" | "evaluate":
            return "predictions", _PREDICTION_BYTES * work.people
        case "demo_dataset":
            return "images", _DRAWN_IMAGE_BYTES * work.images
        case _:
            return "networks", _WEIGHTS.get(rule, 0.0) * work.network.bytes


def crops_bytes(network: Network, people: int) -> float:
    """Return how many bytes the crops of people take, before normalisation."""
    return 3.0 * network.pixels * people


def download_bytes(file: str) -> float:
    """Return how large a download is, or what is taken out of it: from its name.

    A network of an unknown name is one of the usual size; anything else counts nothing."""
    name = Path(file).name
    usual = _USUAL_BYTES if name.endswith((".pth", ".pt", ".onnx", ".bin")) else 0.0
    return _KNOWN_BYTES.get(name, usual)


def download_seconds(count: float) -> float:
    """Return how long it takes to fetch so many bytes, or to unpack them."""
    return 1 + count / _BYTES_PER_SECOND
