"""Studies that name networks of mmpose's model index: what is planned for them, and what is left out."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.workflow.test_workflow import Workflow, copy_checkout

DOWNLOAD = (
    "results/downloads/download.openmmlab.com/mmpose/top_down/hourglass/hourglass52_coco_256x256-4ec713ba_20200709.pth"
)
STUDY: dict[str, Any] = {
    "dataset": {"synthetic": {"train_images": 12, "val_images": 12}},
    "models": {
        "hourglass52": "td-hm_hourglass52_8xb32-210e_coco-256x256",
        "swin_t": {"name": "td-hm_swin-t-p4-w7_8xb32-210e_coco-256x192", "checkpoint": "swin.pth"},
        "pvt_s": "td-hm_pvt-s_8xb64-210e_coco-256x192",
    },
    "left_out": {"swin_t": {"ncnn": "pnnx fails"}, "pvt_s": {"all": "it cannot be exported"}},
    "variants": ["onnxruntime", "ncnn", "ncnn-int8"],
}


@pytest.fixture(scope="module")
def workflow(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    folder: Path = tmp_path_factory.mktemp("naming")
    copy_checkout(folder)
    (folder / "swin.pth").write_bytes(b"weights")
    (folder / "small.yaml").write_text(yaml.safe_dump({"studies": {"named": STUDY}}))
    return Workflow(folder)


def test_checkpoint_of_a_name_is_downloaded_and_rows_that_are_left_out_are_not_planned(workflow: Workflow) -> None:
    assert workflow.planned(DOWNLOAD) == {"download": 1}
    jobs = workflow.planned("results/named/result.md")
    # Of hourglass52 three rows, of swin_t one, of pvt_s none.
    assert {rule: jobs[rule] for rule in ("download", "export", "predict", "convert_ncnn", "certify")} == {
        "download": 1,
        "export": 2,
        "predict": 4,
        "convert_ncnn": 1,
        "certify": 1,
    }
    assert (jobs["collect_network"], jobs["collect_result"]) == (2, 1)


def test_study_with_a_file_of_its_own_is_there_where_it_is_the_study_to_run(workflow: Workflow) -> None:
    target = "results/zoo/rtmpose_t_256x192/model.json"
    assert workflow.planned(target, "--config", "study=zoo") == {"describe": 1}
    assert "MissingRuleException" in workflow.run("-n", target, succeeds=False)
