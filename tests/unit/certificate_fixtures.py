"""Everything that a certificate is made of, of a small network on a drawn dataset."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tests.unit.evaluation_fixtures import draw_dataset
from tests.unit.ncnn_fixtures import draw_crops, write_crops
from tests.unit.pose_fixtures import SPEC, pose_network

from posequant.base.files import sha256, write_json
from posequant.certify.certify import certify
from posequant.data.calibration_set import choose_calibration_set
from posequant.data.dataset import ground_truth_instances, load_annotations
from posequant.evaluate.predictions import Poses, Predictions
from posequant.quantize.ncnn2int8 import quantize_files
from posequant.quantize.ncnn2table import write_table
from posequant.workflow.settings.certify import Sampling

SAMPLING = Sampling(resamples=100)


class Case(NamedTuple):
    """Everything that a certificate is made of."""

    predictions: Path
    reference: Path
    annotations: Path
    model: Path
    artifacts: tuple[Path, Path]
    reference_artifacts: tuple[Path, Path]
    crops: Path
    calibration: Path

    def certify(self, **changed: Any) -> dict[str, Any]:
        return certify(**self._replace(**changed)._asdict(), sampling=SAMPLING)


def make_case(folder: Path) -> Case:
    """A small network in INT8 and in FP32, with predictions near the truth that are not its own."""
    dataset = draw_dataset(folder / "val")
    training = draw_dataset(folder / "train", seed=1, first_image=100)
    model = folder / "model.json"
    SPEC.save(model)
    write_crops(folder / "crops", draw_crops(4))
    float_files = folder / "float.param", folder / "float.bin"
    pose_network().write(*float_files)
    write_table(folder / "table", *float_files, folder / "crops", "kl")
    int8_files = folder / "int8.param", folder / "int8.bin"
    quantize_files(*float_files, folder / "table", *int8_files)
    calibration = folder / "calibration.json"
    write_json(calibration, choose_calibration_set(training.annotations, dataset.annotations, people=4, seed=0))
    paths = []
    for variant, files, noise in (("ncnn-int8", int8_files, 3.0), ("ncnn", float_files, 1.0)):
        precision = "int8" if variant == "ncnn-int8" else "fp32"
        identity = {
            "model": "net",
            "variant": variant,
            "backend": "ncnn",
            "precision": precision,
            "protocol": {"boxes": "ground-truth", "flip_test": False},
            "instances": len(ground_truth_instances(load_annotations(dataset.annotations))),
            "sha256": {
                "model": sha256(model),
                "artifact": {path.name: sha256(path) for path in files},
                "annotations": sha256(dataset.annotations),
                "detections": None,
            },
            "versions": {"numpy": "2"},
        }
        paths.append(folder / f"{variant}.npz")
        near(dataset.annotations, noise, identity).save(paths[-1])
    return Case(paths[0], paths[1], dataset.annotations, model, int8_files, float_files, folder / "crops", calibration)


def near(annotations: Path, noise: float, identity: dict[str, Any]) -> Predictions:
    """Predictions that far from the annotated keypoints, in every direction."""
    annotated = load_annotations(annotations)
    people = ground_truth_instances(annotated)
    truth = [annotated.coco.anns[identifier]["keypoints"] for identifier in people.ids]
    generator = np.random.default_rng(int(10 * noise))
    keypoints = np.array(truth, np.float32).reshape(-1, 17, 3)[..., :2]
    count = len(people)
    return Predictions(
        ids=people.ids,
        image_ids=people.image_ids,
        bboxes=people.bboxes,
        bbox_scores=people.bbox_scores,
        poses=Poses(
            keypoints=keypoints + generator.normal(0, noise, keypoints.shape).astype(np.float32),
            keypoint_scores=np.linspace(0.5, 1, count, dtype=np.float32)[:, np.newaxis].repeat(17, axis=1),
            centers=np.zeros((count, 2), np.float32),
            scales=1.25 * (people.bboxes[:, 2:] - people.bboxes[:, :2]),
        ),
        identity=identity,
    )
