"""The certificate of an INT8 network on emulated ARM cores: what it finds there, beside what it finds on x86."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from posequant.base.errors import InputError
from posequant.base.files import read_json, sha256
from posequant.base.verify import versions
from posequant.certify.poses import pose_cost
from posequant.data.dataset import Annotations, load_annotations
from posequant.evaluate.ground import require_same_people
from posequant.evaluate.paired import bootstrap_predictions
from posequant.evaluate.predictions import Predictions, require_everyone
from posequant.workflow.settings.certify import Sampling


def certify_arm(
    *,
    predictions: Path,
    reference: Path,
    emulated: Sequence[Path],
    comparisons: Sequence[Path],
    annotations: Path,
    sampling: Sampling,
) -> dict[str, Any]:
    """Return the content of the certificate.

    Args:
        predictions: those of the INT8 network on x86.
        reference: those of the FP32 network on x86, for the same people.
        emulated: those of the INT8 network on each of the emulated cores, for the same people.
        comparisons: `comparison.json` of each core, in the same order.
        annotations: the COCO keypoint annotations that all of them were made for.
        sampling: of the bootstrap.

    Raises:
        InputError: a file is missing or damaged, or two of them do not belong together.
    """
    here, full = Predictions.load(predictions), Predictions.load(reference)
    annotated = load_annotations(annotations, full.keypoints)
    require_same_people(here, full, (predictions, reference))
    for one, path in ((here, predictions), (full, reference)):
        require_everyone(one, path, annotated)
    cores = []
    for path, comparison in zip(emulated, comparisons, strict=True):
        there, values = Predictions.load(path), read_json(comparison)
        require_same_people(there, here, (path, predictions))
        for file, network in ((path, there.identity["sha256"]["artifact"]), (comparison, values["sha256"]["artifact"])):
            if network != here.identity["sha256"]["artifact"]:
                raise InputError(f"{file}: made by another network than {predictions}. Delete it and run again.")
        cores.append(
            {
                **values,
                "predictions": sha256(path),
                "with_x86": _compared(annotated, here, there, sampling),
                "with_fp32": _compared(annotated, full, there, sampling),
            }
        )
    return {
        "model": here.identity["model"],
        "variant": here.identity["variant"],
        "reference": full.identity["variant"],
        "protocol": here.identity["protocol"],
        "images": len(annotated.images),
        "instances": here.identity["instances"],
        "bootstrap": sampling.filled() | {"unit": "image", "paired": True, "interval": "percentile"},
        "x86_with_fp32": _compared(annotated, full, here, sampling),
        "cores": cores,
        "sha256": {
            "artifact": here.identity["sha256"]["artifact"],
            "predictions": sha256(predictions),
            "reference_predictions": sha256(reference),
            "annotations": sha256(annotations),
        },
        "versions": here.identity["versions"] | versions("pycocotools"),
    }


def _compared(
    annotated: Annotations, reference: Predictions, candidate: Predictions, sampling: Sampling
) -> dict[str, Any]:
    """Return what annotations say of two predictions, and how far they are from each other without."""
    # The last bit of a matrix product depends on how many threads share it; a certificate does not.
    with threadpool_limits(1):
        drawn, draws = bootstrap_predictions(annotated, reference, candidate, sampling)
        poses = pose_cost(reference, candidate, draws)
    return {
        "statistics": {name: asdict(comparison) for name, comparison in drawn.comparisons()},
        "without_labels": asdict(poses),
    }
