"""Poses of single people in reduced precision and in FP32, over their photographs, and the heatmaps they come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.base.files import sha256
from posequant.base.keypoints import KeypointSet
from posequant.base.measures import measure_for
from posequant.base.model_spec import ModelSpec
from posequant.certify.joints import nearest_box
from posequant.data.crops import Cropper
from posequant.data.dataset import Annotations, ImageFile, read_image
from posequant.evaluate.decode import average_with_mirrored, mirror
from posequant.evaluate.keypoint_metrics import KEYPOINT_SCORE_THRESHOLD
from posequant.evaluate.oks import Shift, shift_of_predictions
from posequant.evaluate.pair import Pair, open_pair
from posequant.evaluate.predictions import Poses
from posequant.networks.opening import open_network
from posequant.report import pictures_drawing as drawing
from posequant.report.pictures_choice import Chosen, choose
from posequant.report.pictures_drawing import Heatmaps, Panel, Skeleton
from posequant.report.pictures_frame import Frame
from posequant.workflow.settings.report import Pictures

SCHEMA = 1

# A photograph may take so many bytes; its quality is lowered to that.
_PHOTOGRAPH_BYTES = 20_000
_QUALITIES = (80, 70, 60, 50, 40, 30, 20, 10)
_COMPOSITE_QUALITY = 85


def make_pictures(
    *,
    predictions: Path,
    reference: Path,
    annotations: Path,
    images: Path,
    model: Path,
    artifacts: Sequence[Path],
    reference_artifacts: Sequence[Path],
    settings: Pictures,
    folder: Path,
    link: str,
) -> dict[str, Any]:
    """Draw some people's poses by a network in reduced precision and by the FP32 network in the same runtime.

    Loss is 1 - OKS to FP32 (`evaluate.oks`). Boxes are those of the predictions, annotated or detected.

    Args:
        predictions: those of the network in reduced precision.
        reference: those of the FP32 network.
        annotations: the COCO keypoint annotations that both were made for.
        images: folder of the images.
        model: the model description.
        artifacts: its files, as for `as_made`.
        reference_artifacts: those of the FP32 network.
        settings: whom to show.
        folder: where the pictures are written; it is created.
        link: what their names begin with in what is returned: the folder's name as a reader of it sees it.

    Returns:
        The content of `pictures.json`.

    Raises:
        InputError: a file is missing or damaged, or two of them do not belong together.
    """
    cv2.setNumThreads(1)
    pair = open_pair(
        predictions=predictions,
        reference=reference,
        annotations=annotations,
        model=model,
        artifacts=artifacts,
        reference_artifacts=reference_artifacts,
    )
    spec = ModelSpec.load(model)
    shift = shift_of_predictions(pair.reference, pair.candidate)
    people = [_Person.of(one, pair, shift, images) for one in choose(1 - shift.oks, settings)]
    heatmaps = _heatmaps(people, pair, spec)
    folder.mkdir(parents=True)
    ours, theirs = pair.candidate.identity, pair.reference.identity
    return {
        "schema": SCHEMA,
        "model": spec.name,
        "variant": ours["variant"],
        "precision": ours["precision"],
        "reference": theirs["variant"],
        "boxes": ours["protocol"]["boxes"],
        "keypoint_names": list(pair.reference.keypoints.names),
        "skeleton": [list(limb) for limb in pair.reference.keypoints.skeleton],
        "judged_by": measure_for(pair.reference.keypoints.sigmas).loss,
        "least_score": KEYPOINT_SCORE_THRESHOLD,
        "people": [
            person.drawn(maps, (theirs["variant"], ours["variant"]), folder, link)
            for person, maps in zip(people, heatmaps, strict=True)
        ],
        "settings": settings.filled(),
        "sha256": {
            "predictions": sha256(predictions),
            "reference_predictions": sha256(reference),
            "artifact": ours["sha256"]["artifact"],
            "reference_artifact": theirs["sha256"]["artifact"],
            "model": sha256(model),
            "annotations": sha256(annotations),
            "detections": ours["sha256"]["detections"],
        },
    }


@dataclass(frozen=True)
class _Pose:
    """A pose in an image.

    Attributes:
        values: of each keypoint x and y in pixels of the image, and its score or visibility; float64 (K, 3).
        least: keypoints whose third value is larger are drawn.
        color: of its skeleton.
    """

    values: NDArray[np.float64]
    least: float
    color: str

    @classmethod
    def predicted(cls, poses: Poses, row: int, color: str) -> "_Pose":
        """Return a predicted pose."""
        values = np.column_stack([poses.keypoints[row], poses.keypoint_scores[row]]).astype(np.float64)
        return cls(values, KEYPOINT_SCORE_THRESHOLD, color)

    @classmethod
    def annotated(cls, annotation: Mapping[str, Any]) -> "_Pose":
        """Return that of an annotation."""
        values = np.array(annotation["keypoints"], np.float64).reshape(-1, 3)
        return cls(values, 0, drawing.ANNOTATION)

    @property
    def drawn(self) -> NDArray[np.bool_]:
        """Which keypoints are drawn, bool (K,)."""
        return self.values[:, 2] > self.least

    def skeleton(self, frame: Frame, limbs: Sequence[tuple[int, int]]) -> Skeleton:
        """Return it as it is drawn over the photograph."""
        return Skeleton(frame.place(self.values[:, :2]), limbs, self.drawn, self.color)

    def listed(self, frame: Frame) -> list[list[float]]:
        """Return the keypoints in the coordinates of the photograph; the third value of each stays as it is."""
        places = np.column_stack([frame.place(self.values[:, :2]).round(2), self.values[:, 2].round(4)])
        rows: list[list[float]] = places.tolist()
        return rows


@dataclass(frozen=True)
class _Person:
    """A person who is shown.

    Attributes:
        chosen: why, and the row among the predictions.
        image: the person's image.
        image_sha256: of its file.
        pixels: of the image, uint8 (height, width, 3), BGR.
        identifier: annotation id or, for a detected box, its number.
        bbox: left, top, right, bottom in pixels of the image, float32 (4,).
        annotation: of the person, where there is one.
        detected: whether the box is a detected one.
        reference, candidate: the two predicted poses.
        loss: 1 - OKS to FP32.
        pixels_moved: of each keypoint, in pixels of the image, float64 (K,).
        counted: which keypoints FP32 is sure of, bool (K,); at least one.
        keypoints: what the poses have.
    """

    chosen: Chosen
    image: ImageFile
    image_sha256: str
    pixels: NDArray[np.uint8]
    identifier: int
    bbox: NDArray[np.float32]
    annotation: Mapping[str, Any] | None
    detected: bool
    reference: _Pose
    candidate: _Pose
    loss: float
    pixels_moved: NDArray[np.float64]
    counted: NDArray[np.bool_]
    keypoints: KeypointSet

    @classmethod
    def of(cls, chosen: Chosen, pair: Pair, shift: Shift, images: Path) -> "_Person":
        """Look up all that is known of a chosen person."""
        row, full = chosen.row, pair.reference
        image = next(image for image in pair.annotated.images if image.id == full.image_ids[row])
        detected = full.identity["protocol"]["boxes"] != "ground-truth"
        identifier = int(full.ids[row])
        annotated = pair.annotated.coco.anns
        annotation = _annotated_at(pair.annotated, image.id, full.bboxes[row]) if detected else annotated[identifier]
        return cls(
            chosen=chosen,
            image=image,
            pixels=read_image(images, image),
            image_sha256=sha256(images / image.file_name),
            identifier=identifier,
            bbox=full.bboxes[row],
            annotation=annotation,
            detected=detected,
            reference=_Pose.predicted(full.poses, row, drawing.REFERENCE),
            candidate=_Pose.predicted(pair.candidate.poses, row, drawing.CANDIDATE),
            loss=float(1 - shift.oks[row]),
            pixels_moved=shift.pixels[row],
            counted=shift.counted[row],
            keypoints=full.keypoints,
        )

    @property
    def joint(self) -> int:
        """The keypoint that moved most, of those that count."""
        return int(np.where(self.counted, self.pixels_moved, -1).argmax())

    def drawn(self, heatmaps: Heatmaps | None, variants: tuple[str, str], folder: Path, link: str) -> dict[str, Any]:
        """Write the person's pictures and return what there is to know of them."""
        name = f"{self.chosen.choice}-{self.chosen.rank}"
        truth = _Pose.annotated(self.annotation) if self.annotation else None
        shown = [pose.values[pose.drawn, :2] for pose in (self.reference, self.candidate, truth) if pose]
        # The arrow leads to a keypoint whatever its score.
        shown.append(self.candidate.values[[self.joint], :2])
        frame = Frame.around(np.vstack([self.bbox.reshape(2, 2), *shown]), (self.image.width, self.image.height))
        photograph = frame.photograph(self.pixels)
        _write_photograph(folder / f"{name}.jpg", photograph)
        limbs = self.keypoints.skeleton
        below = [truth.skeleton(frame, limbs)] if truth else []
        skeletons = [pose.skeleton(frame, limbs) for pose in (self.reference, self.candidate)]
        start, joint = skeletons[0].points[self.joint], self.keypoints.names[self.joint]
        moved = self.pixels_moved[self.joint] > 0
        panels = [
            Panel(title, photograph, [*below, skeleton], (start, skeleton.points[self.joint]) if moved else None)
            for title, skeleton in zip((f"FP32 ({variants[0]})", variants[1]), skeletons, strict=True)
        ]
        titles = [*(f"{joint.replace('_', ' ')}: {network}" for network in ("FP32", variants[1])), "difference"]
        compared = drawing.composite(panels, heatmaps, titles)
        _write(folder / f"{name}-compared.jpg", compared, quality=_COMPOSITE_QUALITY)
        left, top, right, bottom = self.bbox.astype(np.float64).tolist()
        return {
            "choice": self.chosen.choice,
            "rank": self.chosen.rank,
            "image": {"id": self.image.id, "file_name": self.image.file_name, "sha256": self.image_sha256},
            "annotation_id": self.annotation["id"] if self.annotation else None,
            "detection": self.identifier if self.detected else None,
            "box": [round(value, 2) for value in (left, top, right - left, bottom - top)],
            "photograph": f"{link}/{name}.jpg",
            "compared": f"{link}/{name}-compared.jpg",
            "size": list(frame.size),
            "reference": self.reference.listed(frame),
            "candidate": self.candidate.listed(frame),
            "annotation": truth.listed(frame) if truth else None,
            "scale": frame.scale,
            "loss": self.loss,
            "shifts": [
                round(pixels, 3) if counts else None
                for pixels, counts in zip(self.pixels_moved.tolist(), self.counted.tolist(), strict=True)
            ],
            "moved_most": {"joint": joint, "pixels": round(float(self.pixels_moved[self.joint]), 3)},
            "heatmaps": heatmaps and _write_heatmaps(heatmaps, folder, link, name),
        }


def _annotated_at(annotated: Annotations, image: int, bbox: NDArray[np.float32]) -> Mapping[str, Any] | None:
    """Return the annotated person whose box overlaps a detected one most (`nearest_box`); None where nobody's does."""
    people = [one for one in annotated.coco.imgToAnns[image] if one["num_keypoints"] and not one["iscrowd"]]
    boxes = np.array([one["bbox"] for one in people], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    place = nearest_box(boxes, bbox)
    return None if place is None else people[place]


def _heatmaps(people: Sequence[_Person], pair: Pair, spec: ModelSpec) -> list[Heatmaps | None]:
    """Return the heatmaps of the joint of each person that moved most; None where the output is none."""
    if len(spec.output_shapes) != 1 or len(spec.output_shapes[0]) != 3 or not people:
        return [None] * len(people)
    cropper = Cropper(spec)
    crops = cropper.normalise(np.stack([cropper.cut(person.pixels, person.bbox)[0] for person in people]))
    found = []
    for predictions, made in ((pair.reference, pair.reference_made), (pair.candidate, pair.made)):
        identity = predictions.identity
        network = open_network(identity["backend"], identity["precision"], list(made), spec, device=predictions.device)
        outputs = network.forward(crops)
        if identity["protocol"]["flip_test"]:
            outputs = average_with_mirrored(outputs, network.forward(mirror(crops)), spec)
        # Of a keypoint's planes the first is the heatmap, the others are offsets.
        found.append(outputs[0][:, :: outputs[0].shape[1] // len(spec.keypoints)])
    return [Heatmaps.of(*(maps[place, person.joint] for maps in found)) for place, person in enumerate(people)]


def _write_heatmaps(heatmaps: Heatmaps, folder: Path, link: str, name: str) -> dict[str, Any]:
    written: dict[str, Any] = {}
    for kind in ("reference", "candidate", "difference"):
        file = f"{name}-{kind}.png"
        _write(folder / file, getattr(heatmaps, kind))
        written[kind] = f"{link}/{file}"
    return written | {"largest_difference": heatmaps.largest_difference}


def _write_photograph(path: Path, photograph: NDArray[np.uint8]) -> None:
    for quality in _QUALITIES:
        data = _encoded(path, photograph, quality)
        if len(data) <= _PHOTOGRAPH_BYTES:
            break
    path.write_bytes(data)


def _write(path: Path, picture: NDArray[np.uint8], quality: int = 0) -> None:
    path.write_bytes(_encoded(path, picture, quality))


def _encoded(path: Path, picture: NDArray[np.uint8], quality: int) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix == ".jpg" else []
    done, data = cv2.imencode(path.suffix, picture, options)
    if not done:
        raise InputError(f"{path}: OpenCV cannot write it")
    return bytes(data)
