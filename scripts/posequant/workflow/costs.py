"""What the steps of a study cost, in time and on the disk: a table of what was measured, for plans and estimates."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Billions of multiply-accumulates that one thread does in a second, by backend and precision: Hourglass52 at 256x256,
# one crop at a time, on a core of a 2-core x86 machine with AVX-512 (Intel Sapphire Rapids). `make scale` measures them
# again, and docs/scale.md has both.
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
# How the file names a person that is evaluated, and a box.
_ANNOTATED = re.compile(rb'"num_keypoints"\s*:\s*[1-9]')
_BOX = re.compile(rb'"bbox"\s*:')


@dataclass(frozen=True)
class Network:
    """What a network takes.

    Attributes:
        gmac: billions of multiply-accumulates for a crop.
        bytes: of its weights in float32.
        pixels: of a crop.
    """

    gmac: float = _USUAL_GMAC
    bytes: float = _USUAL_BYTES
    pixels: int = _USUAL_PIXELS

    def seconds(self, backend: str, precision: str, *, flip_test: bool = False) -> float:
        """Return how long one thread takes to predict a person."""
        return (2 if flip_test else 1) * self.gmac / RATES[backend, precision] + BESIDE_THE_NETWORK


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
    """Return how many people are evaluated, counted in the text of a file; None if it is not there yet.

    Args:
        annotations: COCO keypoint annotations; people with a keypoint are evaluated.
        detections: COCO detection results, if their boxes are taken.
    """
    path, pattern = (annotations, _ANNOTATED) if detections is None else (detections, _BOX)
    if not path.is_file():
        return None
    content = path.read_bytes()
    return sum(1 for _ in pattern.finditer(content))


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
