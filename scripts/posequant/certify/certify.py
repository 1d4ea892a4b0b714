"""The certificate of an INT8 network: what it costs beside FP32 on the same people, and what its arithmetic can do."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from posequant.base.errors import InputError
from posequant.base.files import read_json, sha256
from posequant.base.model_spec import ModelSpec
from posequant.base.verify import compare, versions
from posequant.certify import runtime_operators
from posequant.certify.joints import joint_costs
from posequant.data.crop_files import load_crops
from posequant.data.dataset import Annotations, load_annotations
from posequant.evaluate.bootstrap import Bootstrap, bootstrap, images_to_decide, match, verdict
from posequant.evaluate.keypoint_metrics import coco_results
from posequant.evaluate.oks import label_free_cost
from posequant.evaluate.predictions import Predictions
from posequant.networks import ncnn_layers
from posequant.networks.opening import open_network
from posequant.workflow.settings.certify import Sampling

# What a quantized network must keep of the FP32 one's quality in MLPerf Inference, by benchmark and difficulty (Reddi
# et al., MLPerf Inference Benchmark, ISCA 2020; mlcommons/inference_policies, inference_rules.adoc).
TARGETS = (0.99, 0.999)
# Of the calibration crops, the first so many are run to compare outputs.
_CROPS_COMPARED = 32
_COMMON_FILES = ("model", "annotations", "detections")


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
        predictions: those of the INT8 network.
        reference: those of the FP32 network in the same runtime, for the same people.
        annotations: the COCO keypoint annotations that both were made for.
        model: the model description.
        artifacts: the INT8 network's files, as `open_network` takes them.
        reference_artifacts: those of the FP32 network.
        crops: folder of the calibration crops.
        calibration: the calibration set, `calibration.json`.
        sampling: of the bootstrap.

    Raises:
        InputError: a file is missing or damaged, or two of them do not belong together.
    """
    candidate, full = Predictions.load(predictions), Predictions.load(reference)
    _require_pair(full, candidate, reference, predictions)
    annotated = load_annotations(annotations)
    _require_hashes(candidate, predictions, {"annotations": annotations, "model": model}, artifacts)
    _require_hashes(full, reference, {}, reference_artifacts)
    spec = ModelSpec.load(model)
    matches = [match(annotated, coco_results(one, annotated.person_category)) for one in (full, candidate)]
    drawn = bootstrap(matches[0], matches[1], sampling.resamples, sampling.seed, sampling.confidence)
    joints = joint_costs(annotated, full, candidate, drawn.draws, sampling.confidence)
    return {
        "model": spec.name,
        "variant": candidate.identity["variant"],
        "reference": full.identity["variant"],
        "protocol": candidate.identity["protocol"],
        "images": len(annotated.images),
        "instances": candidate.identity["instances"],
        "bootstrap": sampling.filled() | {"unit": "image", "paired": True, "interval": "percentile"},
        "statistics": {name: asdict(comparison) for name, comparison in drawn.comparisons()},
        "share_of_fp32": _share(drawn, len(annotated.images)),
        "joints": [asdict(joint) for joint in joints],
        "without_labels": asdict(label_free_cost(full, candidate)),
        "outputs": _outputs(candidate.identity["backend"], reference_artifacts, artifacts, spec, crops),
        **_arithmetic(candidate.identity["backend"], artifacts, spec, crops),
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


def _outputs(
    backend: str, reference_artifacts: Sequence[Path], artifacts: Sequence[Path], spec: ModelSpec, crops: Path
) -> dict[str, Any]:
    """Return how far the outputs of the INT8 network are from those of the FP32 network on calibration crops."""
    tensors = load_crops(crops, limit=_CROPS_COMPARED)
    reference, candidate = (
        open_network(backend, precision, files, spec).forward(tensors)
        for precision, files in (("fp32", reference_artifacts), ("int8", artifacts))
    )
    return {"crops": len(tensors), **asdict(compare(reference, candidate))}


def _arithmetic(backend: str, artifacts: Sequence[Path], spec: ModelSpec, crops: Path) -> dict[str, Any]:
    """Return what can be known of the runtime's arithmetic: `layers`, `work`, and `overflow` or None."""
    if backend == "openvino":
        xml, weights = artifacts
        return runtime_operators.arithmetic(runtime_operators.openvino_operators(xml, weights))
    if backend == "onnxruntime":
        (onnx,) = artifacts
        return runtime_operators.arithmetic(runtime_operators.onnxruntime_operators(onnx))
    param, weights = artifacts
    return ncnn_layers.arithmetic(param, weights, load_crops(crops, limit=None), spec.input_shape)


def _share(drawn: Bootstrap, images: int) -> dict[str, Any] | None:
    kept = drawn.share_kept()
    if kept is None:
        return None
    share, between = kept
    targets = [
        {
            "target": target,
            "verdict": (said := verdict(between, target)),
            "images_to_decide": images_to_decide(share, between, target, images) if said == "undecided" else None,
        }
        for target in TARGETS
    ]
    return {"estimate": share, "interval": between, "targets": targets}


def _calibration(path: Path, annotated: Annotations, annotations: Path) -> dict[str, Any]:
    """Return what the calibration set was, after looking once more whether it shares an image with the evaluation."""
    content = read_json(path)
    try:
        seed, training, proof = content["seed"], content["annotations"], content["evaluation"]
        images = {(person["image"]["id"], person["image"]["file_name"]) for person in content["people"]}
        proven_for = proof["sha256"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: not a calibration set. Delete it and run again.") from error
    if proven_for != sha256(annotations):
        raise InputError(f"{path}: was kept apart from other annotations than {annotations}. Choose the people again.")
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


def _require_pair(full: Predictions, candidate: Predictions, full_path: Path, candidate_path: Path) -> None:
    for predictions, path, precision in ((full, full_path, "fp32"), (candidate, candidate_path, "int8")):
        if predictions.identity["precision"] != precision:
            raise InputError(f"{path}: predictions in {predictions.identity['precision']}; give those in {precision}")
    ours, theirs = candidate.identity, full.identity
    ground = [(key, ours[key], theirs[key]) for key in ("model", "backend", "protocol", "instances")]
    ground += [(f"sha256 of the {key}", ours["sha256"][key], theirs["sha256"][key]) for key in _COMMON_FILES]
    for what, one, other in ground:
        if one != other:
            raise InputError(
                f"{candidate_path}: cannot be compared with {full_path}: {what} is {one!r} and {other!r}. "
                "Predict both again."
            )
    if not np.array_equal(candidate.ids, full.ids) or not np.array_equal(candidate.bboxes, full.bboxes):
        raise InputError(f"{candidate_path}: other people, or in another order, than in {full_path}. Predict again.")


def _require_hashes(predictions: Predictions, path: Path, files: dict[str, Path], artifacts: Sequence[Path]) -> None:
    said = predictions.identity["sha256"]
    for name, file in files.items():
        if said[name] != sha256(file):
            raise InputError(f"{path}: made for another {name} than {file}. Predict again.")
    if sorted(said["artifact"].values()) != sorted(map(sha256, artifacts)):
        given = " and ".join(map(str, artifacts))
        raise InputError(f"{path}: made by another network than {given}. Predict again.")
