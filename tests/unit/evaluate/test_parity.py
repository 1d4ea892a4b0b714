"""The PyTorch row is what mmpose's own test loop gives: boxes, crops, flip test, decoding, rescoring and metric."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posequant.base.measures import STATISTICS
from posequant.base.openmmlab import load_config, loadable_globals
from posequant.demo.scenes import write_dataset
from posequant.evaluate.keypoint_metrics import evaluate_predictions
from posequant.evaluate.predict import make_predictions
from posequant.export.describe import describe_mmpose

MODEL = Path(__file__).parents[3] / "models/hourglass_demo"
# CocoMetric's names of the ten statistics, in the order of STATISTICS.
NAMES_OF_MMPOSE = ("AP", "AP .5", "AP .75", "AP (M)", "AP (L)", "AR", "AR .5", "AR .75", "AR (M)", "AR (L)")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's dataset, and detections.json: its boxes disturbed, some twice, in no order."""
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder / "demo", {"train": 1, "val": 16}, seed=5)
    generator = np.random.default_rng(0)
    people = json.loads((folder / "demo/annotations/person_keypoints_val.json").read_text())["annotations"]
    detections = []
    for person in [*people, *people[::3]]:
        extent = np.array(person["bbox"][2:] * 2)
        box = np.array(person["bbox"]) + generator.normal(0, 0.03, 4) * extent
        detections.append(
            {
                "image_id": person["image_id"],
                "category_id": 1,
                "bbox": [round(float(value), 2) for value in box],
                "score": round(float(generator.uniform(0.05, 1)), 4),
            }
        )
    order = generator.permutation(len(detections))
    (folder / "demo/detections.json").write_text(json.dumps([detections[place] for place in order]))
    return folder / "demo"


def statistics_of_mmpose(data: Path, detections: Path | None, flip_test: bool, work_dir: Path) -> dict[str, float]:
    """What `Runner.test` says of the model's config with another dataset."""
    config = load_config(MODEL / "config.py").copy()
    from mmengine.runner import Runner

    annotations = str(data / "annotations/person_keypoints_val.json")
    training = ("train_", "val_", "optim_wrapper", "param_scheduler")
    for name in [key for key in config if key.startswith(training)]:
        config.pop(name)
    config.test_dataloader.update(num_workers=0, persistent_workers=False)
    config.test_dataloader.dataset.update(data_root=f"{data}/", bbox_file=str(detections) if detections else None)
    config.test_evaluator.ann_file = annotations
    config.model.test_cfg.flip_test = flip_test
    config.load_from = str(MODEL / "checkpoint.pth")
    config.work_dir = str(work_dir)
    config.experiment_name = work_dir.name
    config.log_level = "ERROR"
    with loadable_globals():
        found: dict[str, Any] = Runner.from_cfg(config).test()
    return {name: found[f"coco/{other}"] for name, other in zip(STATISTICS, NAMES_OF_MMPOSE, strict=True)}


@pytest.mark.parametrize("boxes", ["ground-truth", "detections"])
@pytest.mark.parametrize("flip_test", [False, True])
def test_statistics_are_those_of_mmposes_test_loop(data: Path, tmp_path: Path, boxes: str, flip_test: bool) -> None:
    detections = data / "detections.json" if boxes == "detections" else None
    annotations = data / "annotations/person_keypoints_val.json"
    describe_mmpose("hourglass_demo", MODEL / "config.py").save(tmp_path / "model.json")
    make_predictions(
        model=tmp_path / "model.json",
        variant="pytorch",
        backend="pytorch",
        precision="fp32",
        artifacts=[MODEL / "config.py", MODEL / "checkpoint.pth"],
        images=data / "val",
        annotations=annotations,
        detections=detections,
        flip_test=flip_test,
        threads=2,
    ).save(tmp_path / "predictions.npz")
    metrics, _ = evaluate_predictions(tmp_path / "predictions.npz", annotations)
    expected = statistics_of_mmpose(data, detections, flip_test, tmp_path)
    # mmpose says -1 where nobody is of the size.
    found = {name: -1 if value is None else value for name, value in metrics["statistics"].items()}
    assert found == pytest.approx(expected, abs=1e-4)
    assert 0 < found["AP"] < 1
