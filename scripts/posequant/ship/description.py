"""`model.json` of a package: what a program needs to know of the network, and what is known of its quality."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from posequant.base.errors import InputError
from posequant.base.measures import AP, measure_of
from posequant.base.model_spec import ModelSpec
from posequant.base.verify import installed, versions
from posequant.ncnn_format.model import NcnnModel
from posequant.workflow.settings.precisions import NCNN, TITLES

# Goes up where a key is taken away or means something else.
SCHEMA = "posequant-package/1"
_FILES = {
    "ncnn": ("model.param", "model.bin"),
    "ncnn-vulkan": ("model.param", "model.bin"),
    "onnxruntime": ("model.onnx",),
    "openvino": ("model.xml", "model.bin"),
}


@dataclass(frozen=True)
class Runtime:
    """How a package runs its network.

    Attributes:
        name: of the library, which is ncnn for Vulkan, too.
        precision: the arithmetic.
        title: for people.
        files: of the network, by their names in the package.
        options: the runtime's own; they belong to the network.
        packages: versions of the Python packages that its programs import, by their names in the index.
    """

    name: str
    precision: str
    title: str
    files: tuple[str, ...]
    options: Mapping[str, Any]
    packages: Mapping[str, str]


def runtime_of(backend: str, precision: str) -> Runtime:
    """Return how a network of a backend is run; `InputError` for PyTorch, which no app has."""
    if backend not in _FILES:
        known = ", ".join(TITLES[name] for name in _FILES)
        raise InputError(
            f"no package is made of a network in {backend}: an app runs it in {known}. Choose a row of one of these."
        )
    name = "ncnn" if backend in NCNN else backend
    return Runtime(
        name=name,
        precision=precision,
        title=f"{TITLES[backend]} {precision.upper()}",
        files=_FILES[backend],
        options=_options(backend, precision),
        packages=installed(name, "numpy", "opencv-python-headless"),
    )


def blobs_of(backend: str, spec: ModelSpec, files: Sequence[Path]) -> tuple[str, str]:
    """Return the names of the input and the output in the `files` of a network that has one of each."""
    if backend not in NCNN:
        return spec.input_name, spec.output_names[0]
    layers = NcnnModel.read(*files).layers
    read = {blob for layer in layers for blob in layer.bottoms}
    (input_name,) = (layer.tops[0] for layer in layers if layer.type == "Input")
    (output_name,) = (top for layer in layers for top in layer.tops if top not in read)
    return input_name, output_name


def describe(
    spec: ModelSpec,
    *,
    metrics: Mapping[str, Any],
    certificate: Mapping[str, Any] | None,
    runtime: Runtime,
    blobs: tuple[str, str],
    golden: Mapping[str, Any],
    files: Mapping[str, bytes],
    license: str,
) -> dict[str, Any]:
    """Return the content of `model.json`.

    Args:
        spec: of the network.
        metrics: what the row scores.
        certificate: of the row, if it has one.
        runtime: how the network is run.
        blobs: names of its input and its output there.
        golden: `Golden.described`.
        files: what is packed beside, by name; a change of these is found by the self-test.
        license: of the network; empty where it is not known.
    """
    (shape,) = spec.output_shapes
    input_name, output_name = blobs
    keypoints = spec.keypoints
    return {
        "schema": SCHEMA,
        "model": spec.name,
        "variant": metrics["variant"],
        "runtime": {
            "name": runtime.name,
            "title": runtime.title,
            "version": runtime.packages[runtime.name],
            "precision": runtime.precision,
            "files": list(runtime.files),
            "options": dict(runtime.options),
        },
        "input": {
            "name": input_name,
            "layout": "float32 (1, channel, row, column): (pixel - mean) / std, pixels from 0 to 255",
            "size": list(spec.input_size),
            "channels": "RGB" if spec.to_rgb else "BGR",
            "mean": list(spec.mean),
            "std": list(spec.std),
        },
        "crop": {
            "padding": spec.padding,
            "use_udp": spec.use_udp,
            "interpolation": "bilinear",
            "outside": 0,
        },
        "output": {"name": output_name, "layout": "float32 (keypoint, row, column)", "shape": list(shape)},
        "codec": spec.codec,
        "keypoints": list(keypoints.names),
        "skeleton": [list(limb) for limb in keypoints.skeleton],
        "flip_pairs": [[one, other] for one, other in enumerate(keypoints.flip_indices) if one < other],
        "golden": dict(golden),
        "evaluation": {key: metrics[key] for key in ("protocol", "images", "instances", "statistics")},
        "certificate": _figures(certificate) if certificate else None,
        "license": license,
        "versions": versions(*runtime.packages),
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())},
    }


def in_bytes(described: Mapping[str, Any]) -> bytes:
    """Return the file."""
    return (json.dumps(described, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _options(backend: str, precision: str) -> dict[str, Any]:
    match backend:
        case "ncnn" | "ncnn-vulkan":
            from posequant.networks.ncnn import set_options

            options = SimpleNamespace()
            set_options(options, precision, vulkan=backend == "ncnn-vulkan")
            # How many threads compute is the app's choice.
            return {name: value for name, value in sorted(vars(options).items()) if name != "num_threads"}
        case "openvino":
            return {"INFERENCE_PRECISION_HINT": "f32"}
    return {}


def _figures(certificate: Mapping[str, Any]) -> dict[str, Any]:
    without_labels, statistics = certificate["without_labels"], certificate["statistics"]
    measure, oks = measure_of(statistics), without_labels["oks"]
    return {
        "file": "certificate.json",
        "reference": certificate["reference"],
        "confidence": certificate["bootstrap"]["confidence"],
        measure.score: statistics[measure.score],
        "share_of_fp32": certificate["share_of_fp32"],
        **({"oks_to_fp32": oks} if measure == AP else {"nme_to_fp32": oks and _as_error(oks)}),
        "keypoints_moved_by_at_most_pixels": without_labels["within"],
        "output_sqnr_db": certificate["outputs"]["sqnr_db"],
    }


def _as_error(oks: Mapping[str, Any]) -> dict[str, Any]:
    """Return 1 - what is in the place of OKS where there are no sigmas, the normalised mean error."""
    between = oks["interval"]
    return {**oks, "value": 1 - oks["value"], "interval": between and [1 - between[1], 1 - between[0]]}
