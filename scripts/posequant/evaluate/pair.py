"""Predictions in reduced precision and those of FP32, found to belong together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from posequant.base.errors import InputError
from posequant.base.files import sha256
from posequant.base.verify import as_made
from posequant.data.dataset import Annotations, load_annotations
from posequant.evaluate.ground import require_same_people
from posequant.evaluate.predictions import Predictions, require_everyone


@dataclass(frozen=True)
class Pair:
    """A row in reduced precision and the FP32 row of the same runtime.

    Attributes:
        reference: the predictions of the FP32 network.
        candidate: those of the other, of the same people in the same order.
        annotated: the annotations that both were made for.
        reference_made: the files of the FP32 network, without their maker's record, and the SHA-256 of each.
        made: those of the other.
    """

    reference: Predictions
    candidate: Predictions
    annotated: Annotations
    reference_made: Mapping[Path, str]
    made: Mapping[Path, str]


def open_pair(
    *,
    predictions: Path,
    reference: Path,
    annotations: Path,
    model: Path,
    artifacts: Sequence[Path],
    reference_artifacts: Sequence[Path],
) -> Pair:
    """Read two rows that are to be compared person by person.

    Args:
        predictions: those of the network in reduced precision.
        reference: those of the FP32 network in the same runtime, for the same people.
        annotations: the COCO keypoint annotations that both were made for.
        model: the model description.
        artifacts: its files, as for `as_made`.
        reference_artifacts: those of the FP32 network.

    Raises:
        InputError: a file is missing or damaged, or two of them do not belong together.
    """
    candidate, full = Predictions.load(predictions), Predictions.load(reference)
    _require_pair(full, candidate, reference, predictions)
    annotated = load_annotations(annotations, full.keypoints)
    made, reference_made = as_made(artifacts), as_made(reference_artifacts)
    _require_hashes(candidate, predictions, {"model": model}, made)
    _require_hashes(full, reference, {}, reference_made)
    for each, path in ((candidate, predictions), (full, reference)):
        require_everyone(each, path, annotated)
    return Pair(full, candidate, annotated, reference_made, made)


def _require_pair(full: Predictions, candidate: Predictions, full_path: Path, candidate_path: Path) -> None:
    ours, theirs = candidate.identity, full.identity
    if theirs["precision"] != "fp32":
        raise InputError(f"{full_path}: predictions in {theirs['precision']}; give those in fp32")
    if ours["precision"] == "fp32":
        raise InputError(f"{candidate_path}: predictions in fp32; give those in reduced precision")
    if ours["backend"] != theirs["backend"]:
        raise InputError(
            f"{candidate_path}: made by {ours['backend']}, and {full_path} by {theirs['backend']}. Give those of one "
            "runtime."
        )
    if candidate.device != full.device:
        raise InputError(
            f"{candidate_path}: predicted on {candidate.device}, and {full_path} on {full.device}. Predict both on one "
            "device."
        )
    require_same_people(candidate, full, (candidate_path, full_path))


def _require_hashes(predictions: Predictions, path: Path, files: dict[str, Path], made: Mapping[Path, str]) -> None:
    said = predictions.identity["sha256"]
    for name, file in files.items():
        if said[name] != sha256(file):
            raise InputError(f"{path}: made for another {name} than {file}. Predict again.")
    if sorted(said["artifact"].values()) != sorted(made.values()):
        given = " and ".join(map(str, made))
        raise InputError(f"{path}: made by another network than {given}. Predict again.")
