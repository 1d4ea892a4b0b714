"""The certificate of a network in reduced precision: what it costs beside FP32, and what its arithmetic can do."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from posequant.base.errors import InputError
from posequant.base.files import read_json, sha256
from posequant.base.model_spec import ModelSpec
from posequant.base.verify import compare, versions
from posequant.certify import runtime_operators
from posequant.certify.joints import joint_costs
from posequant.certify.poses import pose_cost
from posequant.data.crop_files import load_crops
from posequant.data.dataset import Annotations
from posequant.evaluate.bootstrap import Bootstrap, images_to_decide, verdict
from posequant.evaluate.pair import open_pair
from posequant.evaluate.paired import bootstrap_predictions
from posequant.networks import ncnn_layers
from posequant.networks.ncnn import NcnnNetwork
from posequant.networks.opening import open_network
from posequant.networks.vulkan import find_device
from posequant.workflow.settings.certify import Sampling
from posequant.workflow.settings.precisions import NCNN

# What a quantized network must keep of the FP32 one's quality in MLPerf Inference, by benchmark and difficulty (Reddi
# et al., MLPerf Inference Benchmark, ISCA 2020; mlcommons/inference_policies, inference_rules.adoc).
TARGETS = (0.99, 0.999)
# Of the calibration crops, the first so many are run to compare outputs.
_CROPS_COMPARED = 32


def certify(
    *,
    predictions: Path,
    reference: Path,
    annotations: Path,
    model: Path,
    artifacts: Sequence[Path],
    reference_artifacts: Sequence[Path],
    crops: Path,
    calibration: Path,
    sampling: Sampling,
) -> dict[str, Any]:
    """Return the content of `certificate.json`.

    Args:
        predictions: those of the network in reduced precision.
        reference: those of the FP32 network in the same runtime, for the same people.
        annotations: the COCO keypoint annotations that both were made for.
        model: the model description.
        artifacts: its files, as for `as_made`.
        reference_artifacts: those of the FP32 network.
        crops: folder of the calibration crops.
        calibration: the calibration set, `calibration.json`.
        sampling: of the bootstrap.

    Raises:
        InputError: a file is missing or damaged, or two of them do not belong together.
    """
    pair = open_pair(
        predictions=predictions,
        reference=reference,
        annotations=annotations,
        model=model,
        artifacts=artifacts,
        reference_artifacts=reference_artifacts,
    )
    candidate, full, annotated = pair.candidate, pair.reference, pair.annotated
    spec = ModelSpec.load(model)
    backend, precision = (candidate.identity[key] for key in ("backend", "precision"))
    # Only INT8 of ncnn is run on all of them, with Winograd's algorithm and without.
    tensors = load_crops(crops, limit=None if backend in NCNN and precision == "int8" else _CROPS_COMPARED)
    reference_network = open_network(backend, "fp32", list(pair.reference_made), spec, device=full.device)
    float_outputs = reference_network.forward(tensors[:_CROPS_COMPARED])
    outputs, arithmetic = _run(backend, precision, list(pair.made), spec, tensors, device=candidate.device)
    first_outputs = [values[:_CROPS_COMPARED] for values in outputs]
    # The last bit of a matrix product depends on how many threads share it; a certificate does not.
    with threadpool_limits(1):
        drawn, draws = bootstrap_predictions(annotated, full, candidate, sampling)
        joints, without_labels = joint_costs(annotated, full, candidate, draws), pose_cost(full, candidate, draws)
    return {
        "model": spec.name,
        "variant": candidate.identity["variant"],
        "precision": precision,
        "reference": full.identity["variant"],
        "protocol": candidate.identity["protocol"],
        "images": len(annotated.images),
        "instances": candidate.identity["instances"],
        "bootstrap": sampling.filled() | {"unit": "image", "paired": True, "interval": "percentile"},
        "statistics": {name: asdict(comparison) for name, comparison in drawn.comparisons()},
        "share_of_fp32": _share(drawn, len(annotated.images)),
        "joints": [asdict(joint) for joint in joints],
        "without_labels": asdict(without_labels),
        "outputs": {"crops": len(float_outputs[0]), **asdict(compare(float_outputs, first_outputs))},
        **arithmetic,
        **({"device": candidate.identity["device"]} if candidate.device else {}),
        "calibration": _calibration(calibration, annotated, annotations),
        "sha256": {
            "artifact": candidate.identity["sha256"]["artifact"],
            "predictions": sha256(predictions),
            "reference_artifact": full.identity["sha256"]["artifact"],
            "reference_predictions": sha256(reference),
            "annotations": sha256(annotations),
            "detections": candidate.identity["sha256"]["detections"],
        },
        "versions": candidate.identity["versions"] | versions("pycocotools"),
    }


def _run(
    backend: str,
    precision: str,
    artifacts: Sequence[Path],
    spec: ModelSpec,
    crops: NDArray[np.float32],
    *,
    device: str | None,
) -> tuple[Sequence[NDArray[np.float32]], dict[str, Any]]:
    """Open a network, once, and run it on crops.

    Returns:
        Its outputs, of the first `_CROPS_COMPARED` crops at least; what can be known of the runtime's arithmetic:
        `layers`, `work`, and `overflow` or None.
    """
    first = crops[:_CROPS_COMPARED]
    match backend:
        case "openvino":
            from posequant.networks.openvino import OpenVinoNetwork

            xml, weights = artifacts
            openvino = OpenVinoNetwork(xml, weights, spec, 1, precision)
            operators = runtime_operators.openvino_operators(openvino.model, openvino.compiled)
            return openvino.forward(first), runtime_operators.arithmetic(operators)
        case "onnxruntime":
            from posequant.networks.onnxruntime import OnnxRuntimeNetwork

            (onnx,) = artifacts
            with tempfile.TemporaryDirectory() as folder:
                optimized = Path(folder) / "optimized.onnx"
                onnxruntime = OnnxRuntimeNetwork(onnx, spec, precision, optimized=optimized)
                operators = runtime_operators.onnxruntime_operators(onnx, optimized)
            return onnxruntime.forward(first), runtime_operators.arithmetic(operators)
    param, weights = artifacts
    network = NcnnNetwork(
        param,
        weights,
        precision,
        spec.input_shape,
        spec.output_shapes,
        device=find_device(device) if backend == "ncnn-vulkan" else None,
    )
    describe, some = (ncnn_layers.arithmetic, crops) if precision == "int8" else (ncnn_layers.float_arithmetic, first)
    outputs = network.forward_on_threads(some, 1)
    return outputs, describe(param, weights, network, some, outputs)


def _share(drawn: Bootstrap, images: int) -> dict[str, Any] | None:
    kept = drawn.share_kept()
    if kept is None or kept.interval is None:
        return None
    between = kept.interval
    targets = [
        {
            "target": target,
            "verdict": (said := verdict(between, target)),
            "images_to_decide": images_to_decide(kept.value, between, target, images) if said == "undecided" else None,
        }
        for target in TARGETS
    ]
    return asdict(kept) | {"targets": targets}


def _calibration(path: Path, annotated: Annotations, annotations: Path) -> dict[str, Any]:
    """Return what the calibration set was, after looking once more whether it shares an image with the evaluation."""
    content = read_json(path)
    try:
        seed, training, proof = content["seed"], content["annotations"], content["evaluation"]
        images = {(person["image"]["id"], person["image"]["file_name"]) for person in content["people"]}
        proven_for = proof["sha256"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: not a calibration set. Delete it and run again.") from error
    # Of a subset, the images of the whole set were looked at.
    if proven_for != (annotated.subset.sha256 if annotated.subset else sha256(annotations)):
        raise InputError(f"{path}: was checked against other annotations than {annotations}. Choose the people again.")
    ids, names = {image.id for image in annotated.images}, {image.file_name for image in annotated.images}
    if shared := [identifier for identifier, name in sorted(images) if identifier in ids or name in names]:
        raise InputError(f"{path}: image {shared[0]} is an evaluation image, by its id or file name. Choose others.")
    return {
        "sha256": sha256(path),
        "people": len(content["people"]),
        "images": len(images),
        "seed": seed,
        "annotations": training,
        "evaluation": proof,
    }
