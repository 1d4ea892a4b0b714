"""The fetching rules of the real workflow, against a real server on this machine, and the plan of the shipped study."""

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from tests.unit.evaluation_fixtures import Dataset, draw_dataset
from tests.unit.fetch.http_site import Site, content, serve, status
from tests.workflow.test_workflow import ROOT, Workflow, copy_checkout

TARGET = ("fetch", "--config", "study=coco")
WEIGHTS = b"weights" * 1000
CHECKPOINT = f"/hourglass/net-{hashlib.sha256(WEIGHTS).hexdigest()[:8]}_20200709.pth"
DETECTIONS = "data/coco/person_detection_results/COCO_val2017_detections_AP_H_56_person.json"


class Scene(NamedTuple):
    """A workflow whose study `coco` takes everything from a server."""

    workflow: Workflow
    site: Site
    train: Dataset
    val: Dataset

    @property
    def downloads(self) -> Path:
        return self.workflow.folder / "results/downloads" / self.site.url.removeprefix("http://").replace(":", "_")

    def configure(self, checkpoint: str = CHECKPOINT, **study: Any) -> None:
        """Write small.yaml: the study `coco` with the server's addresses, and the given settings in place of them."""
        annotations = f"{self.site.url}/annotations.zip/annotations"
        settings = {
            "dataset": {
                "train": {"annotations": f"{annotations}/train.json"},
                "val": {"images": f"{self.site.url}/zips/val.zip/val", "annotations": f"{annotations}/val.json"},
            },
            "calibration": {"people": 4},
            "models": {
                "hourglass52_256x256": {"checkpoint": self.site.url + checkpoint},
                "hourglass52_384x384": {"checkpoint": self.site.url + CHECKPOINT},
            },
        }
        (self.workflow.folder / "small.yaml").write_text(yaml.safe_dump({"studies": {"coco": settings | study}}))

    def requested(self) -> list[str]:
        """The paths that the server was asked for since the last call, sorted."""
        paths = sorted(path for path, _ in self.site.requests)
        self.site.requests.clear()
        return paths


def copy_workflow(folder: Path) -> Workflow:
    (folder / DETECTIONS).parent.mkdir(parents=True)
    (folder / DETECTIONS).write_text("[1]")
    copy_checkout(folder)
    return Workflow(folder)


def pack(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as writer:
        for name, data in files.items():
            writer.writestr(name, data)
    return packed.getvalue()


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("fetching")
    train = draw_dataset(folder / "train", seed=1, first_image=101)
    val = draw_dataset(folder / "val", seed=2)
    with pytest.MonkeyPatch.context() as patch, serve() as site:
        patch.setenv("NO_PROXY", "127.0.0.1")
        annotations = json.loads(train.annotations.read_text())
        for image in annotations["images"]:
            picture = (train.images / image["file_name"]).read_bytes()
            image["coco_url"] = site.put(f"/train/{image['file_name']}", content(picture))
        packed = pack(
            {
                "annotations/train.json": json.dumps(annotations).encode(),
                "annotations/val.json": val.annotations.read_bytes(),
            }
        )
        # Each fails once in a way of its own.
        site.put("/annotations.zip", content(packed, drop_after=len(packed) // 2), content(packed))
        site.put("/zips/val.zip", status(503), content(pack({f"val/{p.name}": p.read_bytes() for p in images_of(val)})))
        site.put(CHECKPOINT, content(WEIGHTS[:-1]), content(WEIGHTS))
        scene = Scene(copy_workflow(folder / "workflow"), site, train, val)
        scene.configure()
        scene.workflow.run(*TARGET)
        yield scene


@pytest.fixture
def scene(fetched: Scene) -> Scene:
    """What has fetched everything, with the study's settings put back."""
    fetched.configure()
    return fetched


def images_of(dataset: Dataset) -> list[Path]:
    return sorted(dataset.images.iterdir())


def test_everything_is_fetched_once_and_of_the_training_images_only_the_chosen(scene: Scene) -> None:
    people = json.loads((scene.workflow.folder / "results/coco/calibration.json").read_text())["people"]
    chosen = sorted({person["image"]["file_name"] for person in people})
    folder = scene.workflow.folder / "results/coco/calibration_images"
    assert sorted(path.name for path in folder.glob("*.jpg")) == chosen
    for name in chosen:
        assert (folder / name).read_bytes() == (scene.train.images / name).read_bytes()
    assert len(chosen) < len(images_of(scene.train))
    twice = ["/annotations.zip", "/zips/val.zip", CHECKPOINT]
    assert scene.requested() == sorted([*twice, *twice, *(f"/train/{name}" for name in chosen)])
    val = scene.downloads / "zips/val.zip.unpacked/val"
    assert [path.read_bytes() for path in sorted(val.glob("*.jpg"))] == [p.read_bytes() for p in images_of(scene.val)]
    assert (scene.downloads / CHECKPOINT[1:]).read_bytes() == WEIGHTS
    assert not list(scene.workflow.folder.rglob("*.part*"))


def test_rerun_fetches_nothing(scene: Scene) -> None:
    scene.site.requests.clear()
    assert scene.workflow.planned(*TARGET) == {}
    scene.workflow.run(*TARGET)
    assert scene.requested() == []


def test_images_to_distill_on_are_fetched_beside_those_that_are_there(scene: Scene, tmp_path: Path) -> None:
    workflow = Workflow(shutil.copytree(scene.workflow.folder, tmp_path / "distilling"))
    steps = [{"weights": {}}, {"activations": {"method": "kl"}}, {"distill": {"people": 5}}]
    with (workflow.folder / "small.yaml").open("a") as stream:
        yaml.safe_dump({"recipes": {"tuned": steps}}, stream)
    assert workflow.planned(*TARGET) == {"distillation_set": 1, "distillation_images": 1, "fetch": 1}
    scene.site.requests.clear()
    workflow.run(*TARGET)

    results = workflow.folder / "results/coco"
    people = json.loads((results / "distillation-5.json").read_text())["people"]
    chosen = {person["image"]["file_name"] for person in people}
    there = {path.name for path in (results / "calibration_images").glob("*.jpg")}
    assert {path.name for path in (results / "distillation_images-5").glob("*.jpg")} == chosen
    assert scene.requested() == sorted(f"/train/{name}" for name in chosen - there)
    assert chosen & there
    assert chosen - there
    assert workflow.planned(*TARGET) == {}


def test_of_the_evaluation_images_without_a_folder_only_the_chosen_are_fetched(scene: Scene, tmp_path: Path) -> None:
    workflow = Workflow(tmp_path)
    copy_checkout(tmp_path)
    annotations = json.loads(scene.val.annotations.read_text())
    for image in annotations["images"]:
        picture = (scene.val.images / image["file_name"]).read_bytes()
        image["coco_url"] = scene.site.put(f"/val/{image['file_name']}", content(picture))
    (tmp_path / "val.json").write_text(json.dumps(annotations))
    train = {"images": str(scene.train.images), "annotations": str(scene.train.annotations)}
    study = {
        "dataset": {"train": train, "val": {"annotations": "val.json", "people": 4, "seed": 1}},
        "models": {"mine": {"source": "mmpose", "config": "config.py", "checkpoint": str(scene.val.annotations)}},
        "variants": ["pytorch"],
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({"studies": {"mine": study}}))
    scene.site.requests.clear()
    workflow.run("fetch", "--config", "study=mine")
    results = tmp_path / "results/mine/people-4-seed-1"
    chosen = {image["file_name"] for image in json.loads((results / "annotations.json").read_text())["images"]}
    assert len(chosen) < len(annotations["images"])
    assert {path.name for path in (results / "evaluation_images").glob("*.jpg")} == chosen
    assert scene.requested() == sorted(f"/val/{name}" for name in chosen)


def test_copied_folder_fetches_nothing(scene: Scene, tmp_path: Path) -> None:
    shutil.copytree(scene.workflow.folder, tmp_path / "copy")
    copied = Workflow(tmp_path / "copy")
    assert copied.planned(*TARGET) == {}
    everything = copied.planned("results/result.md", "--config", "study=coco")
    assert not {"download", "unpack_file", "unpack_folder", "calibration_images"} & everything.keys()


def test_editing_the_downloader_fetches_nothing(scene: Scene) -> None:
    with (scene.workflow.folder / "scripts/posequant/fetch/download.py").open("a") as stream:
        stream.write("\n# edited\n")
    assert scene.workflow.planned(*TARGET) == {}


def test_file_placed_by_hand_is_taken(scene: Scene) -> None:
    scene.configure(checkpoint="/hourglass/other.pth")
    assert scene.workflow.planned(*TARGET) == {"download": 1, "fetch": 1}
    (scene.downloads / "hourglass/other.pth").write_bytes(WEIGHTS)
    assert scene.workflow.planned(*TARGET) == {}


def test_missing_file_is_named_by_its_address(scene: Scene) -> None:
    scene.configure(checkpoint="/hourglass/gone.pth")
    output = scene.workflow.run(*TARGET, succeeds=False)
    assert f"error: {scene.site.url}/hourglass/gone.pth: cannot be fetched: the server says 404" in output
    path = (scene.downloads / "hourglass/gone.pth").relative_to(scene.workflow.folder)
    assert f"place it at {path}" in output
    assert "Traceback" not in output


def test_local_paths_need_no_download(scene: Scene) -> None:
    scene.configure(
        dataset={
            split: {"images": str(dataset.images), "annotations": str(dataset.annotations)}
            for split, dataset in (("train", scene.train), ("val", scene.val))
        },
        models={
            name: {"checkpoint": str(scene.downloads / CHECKPOINT[1:])}
            for name in ("hourglass52_256x256", "hourglass52_384x384")
        },
    )
    jobs = scene.workflow.planned("results/result.md", "--config", "study=coco")
    assert jobs["predict"] == 20
    assert not {"download", "unpack_file", "unpack_folder", "calibration_images"} & jobs.keys()


# The study as shipped


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    workflow = copy_workflow(tmp_path_factory.mktemp("shipped"))
    (workflow.folder / "small.yaml").write_text("{}")
    return workflow


def test_shipped_study_plans_both_models_and_all_variants(shipped: Workflow) -> None:
    study = yaml.safe_load((ROOT / "config.yaml").read_text())["studies"]["coco"]
    rows = len(study["models"]) * len(study["variants"])
    jobs = shipped.planned("results/result.md", "--config", "study=coco")
    # Two archives and two checkpoints; of the archives two annotation files and one folder.
    assert (jobs["download"], jobs["unpack_file"], jobs["unpack_folder"], jobs["calibration_images"]) == (4, 2, 1, 1)
    assert (jobs["export"], jobs["predict"], jobs["evaluate"], jobs["render_result"]) == (2, rows, rows, 1)


def test_missing_detections_stop_before_any_job(shipped: Workflow) -> None:
    (shipped.folder / DETECTIONS).unlink()
    output = shipped.run("results/result.md", "--config", "study=coco", succeeds=False)
    assert f"{DETECTIONS}: no such file" in output
    assert "https://mmpose.readthedocs.io/en/latest/dataset_zoo/2d_body_keypoint.html#coco" in output
    assert not (shipped.folder / "results").exists()
    boxes = yaml.safe_dump({"studies": {"coco": {"protocol": {"boxes": "ground-truth"}}}})
    (shipped.folder / "small.yaml").write_text(boxes)
    assert shipped.planned("results/result.md", "--config", "study=coco")["evaluate"] == 20


def test_unknown_config_is_named_before_any_job(shipped: Workflow) -> None:
    model = {"hourglass52_256x256": {"config": "td-hm_hourglass52_8xb32-210e_coco-256x25"}}
    settings = {"protocol": {"boxes": "ground-truth"}, "models": model}
    (shipped.folder / "small.yaml").write_text(yaml.safe_dump({"studies": {"coco": settings}}))
    output = shipped.run("results/result.md", "--config", "study=coco", succeeds=False)
    assert "The nearest config that mmpose ships is 'td-hm_hourglass52_8xb32-210e_coco-256x256'" in output


def test_bad_address_is_named_by_its_key(shipped: Workflow) -> None:
    model = {"hourglass52_256x256": {"checkpoint": "ftp://host/file.pth"}}
    (shipped.folder / "small.yaml").write_text(yaml.safe_dump({"studies": {"coco": {"models": model}}}))
    output = shipped.run("-n", "--config", "study=coco", succeeds=False)
    assert "studies.coco.models.hourglass52_256x256.checkpoint: ftp://host/file.pth: not the address" in output
    assert "Traceback" not in output
