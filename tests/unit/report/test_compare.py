"""Two files about the same rows: their differences, what is refused, and the exit status that a CI goes by."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.dom import minidom

import pytest
import yaml
from tests.unit.certificate_fixtures import SAMPLING, Case, make_case
from tests.unit.result_fixtures import certificate, metrics, result, row_records, small_result

from posequant.base.errors import InputError
from posequant.base.files import write_json
from posequant.evaluate.keypoint_metrics import evaluate_predictions
from posequant.evaluate.predictions import Predictions
from posequant.report.compare import SHOWN, Differences, Figure, compare
from posequant.report.compare_page import render
from posequant.report.junit import junit
from posequant.workflow.settings.compare import Gate

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "scripts/compare.py"


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("compare"))


def of_predictions(case: Case, **gate: Any) -> Differences:
    """INT8 compared with FP32."""
    return compare(case.reference, case.predictions, Gate(**gate), case.annotations, SAMPLING)


def figure(differences: Differences, name: str, row: str = "") -> Figure:
    (found,) = (one for one in differences.figures if one.name == name and row in one.row)
    return found


def test_predictions_differ_by_what_their_certificate_says(case: Case) -> None:
    certified, differences = case.certify(), of_predictions(case)
    assert [one.name for one in differences.figures] == [*SHOWN, "OKS to A"]
    for name in SHOWN:
        found, said = figure(differences, name), certified["statistics"][name]
        assert (found.first, found.second) == (said["reference"], said["candidate"]), name
        assert (found.difference, found.interval) == (said["difference"], said["interval"]), name
    near, oks = certified["without_labels"]["oks"], figure(differences, "OKS to A")
    assert (oks.second, oks.difference) == (near["value"], near["value"] - 1)
    assert oks.interval == (near["interval"][0] - 1, near["interval"][1] - 1)


def test_statistics_are_those_of_the_evaluation(case: Case) -> None:
    differences = of_predictions(case)
    for place, path in (("first", case.reference), ("second", case.predictions)):
        evaluated, _ = evaluate_predictions(path, case.annotations)
        for name in SHOWN:
            assert getattr(figure(differences, name), place) == pytest.approx(evaluated["statistics"][name], abs=1e-12)


def test_equal_predictions_lose_nothing(case: Case) -> None:
    strictest = Gate(tolerance=0, oks_tolerance=0)
    differences = compare(case.reference, case.reference, strictest, case.annotations, SAMPLING)
    assert differences.passed
    assert {(one.difference, one.interval) for one in differences.figures} == {(0.0, (0.0, 0.0))}
    assert figure(differences, "AP").row == "net: ncnn FP32"
    assert "-0.0000" not in render(differences)


def test_interval_decides_unless_the_estimate_is_asked_for(case: Case) -> None:
    found = figure(of_predictions(case), "AP")
    assert found.difference is not None
    assert found.interval is not None
    loss, low, high = -found.difference, -found.interval[1], -found.interval[0]
    assert low < loss < high
    for tolerance, gate, kind in (
        (high + 1e-6, "bound", "within"),
        ((loss + high) / 2, "bound", "undecided"),
        (max(low, 0) / 2, "bound", "outside" if low > 0 else "undecided"),
        ((loss + high) / 2, "estimate", "within"),
        ((max(low, 0) + loss) / 2, "estimate", "outside"),
    ):
        differences = of_predictions(case, tolerance=tolerance, gate=gate)
        judgement = figure(differences, "AP").judgement
        assert judgement is not None
        assert (judgement.kind, differences.passed) == (kind, kind == "within"), (tolerance, gate)


def test_oks_decides_where_a_tolerance_of_it_is_given(case: Case) -> None:
    lossy = of_predictions(case, tolerance=1, oks_tolerance=0.0001)
    assert [one.name for one in lossy.lost] == ["OKS to A"]
    assert of_predictions(case, tolerance=1).passed


def test_same_files_give_the_same_bytes(case: Case) -> None:
    ours, theirs = of_predictions(case), of_predictions(case)
    assert json.dumps(ours.content) == json.dumps(theirs.content)
    assert junit(ours) == junit(theirs)
    assert render(ours) == render(theirs)


def test_predictions_of_other_people_or_another_protocol_are_refused(case: Case, tmp_path: Path) -> None:
    full, other = Predictions.load(case.reference), tmp_path / "other.npz"
    replace(full, ids=full.ids[::-1].copy()).save(other)
    with pytest.raises(InputError, match=r"other people, or in another order, than in .*other\.npz"):
        compare(case.reference, other, Gate(), case.annotations)
    replace(full, identity=full.identity | {"protocol": {"boxes": "detections", "flip_test": False}}).save(other)
    with pytest.raises(InputError, match=r"ncnn\.npz and .*other\.npz cannot be compared: protocol is"):
        compare(case.reference, other, Gate(), case.annotations)


def test_annotations_are_needed_and_must_be_those_of_the_predictions(case: Case, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"compared on the annotations that they were made for"):
        compare(case.reference, case.predictions, Gate())
    other = tmp_path / "other.json"
    other.write_text(case.annotations.read_text() + "\n")
    with pytest.raises(InputError, match=r"ncnn\.npz: made for other annotations than .*other\.json"):
        compare(case.reference, case.predictions, Gate(), other)


def test_files_of_two_kinds_or_of_none_are_refused(case: Case, tmp_path: Path) -> None:
    scores = tmp_path / "metrics.json"
    write_json(scores, evaluate_predictions(case.reference, case.annotations)[0])
    with pytest.raises(InputError, match=r"cannot be compared: metrics and predictions. Give two of one kind"):
        compare(scores, case.reference, Gate(), case.annotations)
    with pytest.raises(InputError, match=r"model\.json: neither the result of a study nor metrics"):
        compare(case.model, scores, Gate())


def test_metrics_have_no_interval(case: Case, tmp_path: Path) -> None:
    paths = tmp_path / "a.json", tmp_path / "b.json"
    for path, predictions in zip(paths, (case.reference, case.predictions), strict=True):
        write_json(path, evaluate_predictions(predictions, case.annotations)[0])
    differences, surer = compare(*paths, Gate(tolerance=0.9)), of_predictions(case)
    assert [one.name for one in differences.figures] == list(SHOWN)
    for name in SHOWN:
        found = figure(differences, name)
        assert found.difference == pytest.approx(figure(surer, name).difference, abs=1e-12)
        assert found.interval is None
    assert differences.passed
    assert "cannot be told from these files" in render(differences)
    assert not compare(*paths, Gate(tolerance=0.0001)).passed


Change = Callable[[dict[str, Any]], object]


def of_results(folder: Path, change: Change, **gate: Any) -> Differences:
    """A result of three rows, one certified, compared with what `change` makes of it."""
    int8 = metrics("ncnn-int8", "ncnn", "int8", 0.57)
    rows = [
        row_records(metrics("pytorch", "pytorch", "fp32", 0.6)),
        row_records(metrics("ncnn", "ncnn", "fp32", 0.59)),
        row_records(int8, certificate(int8, "ncnn")),
    ]
    result(*rows).write(folder / "a.json")
    content = json.loads((folder / "a.json").read_text())
    change(content)
    (folder / "b.json").write_text(json.dumps(content))
    return compare(folder / "a.json", folder / "b.json", Gate(**gate))


def row_of(content: dict[str, Any], place: int) -> Any:
    return content["networks"][0]["rows"][place]


def worsened(content: dict[str, Any]) -> None:
    """The INT8 row loses 0.005 of AP and 0.02 of OKS to FP32, and is twice as large and as fast."""
    row = row_of(content, 2)
    row["statistics"]["AP"] = 0.565
    row["certificate"]["without_labels"]["oks"] = {"value": 0.95, "interval": [0.94, 0.96], "left_out": 0}
    row["cost"]["size_bytes"] *= 2
    row["cost"]["latency"]["median_ms"] /= 2


def test_results_by_hand(tmp_path: Path) -> None:
    # A loss of the tolerance itself is tolerated, however floats round: 0.57 - 0.565 is more than 0.005.
    differences = of_results(tmp_path, worsened, tolerance=0.005, oks_tolerance=0.019)
    found = {one.name: one for one in differences.figures if one.row == "net: ncnn INT8"}
    assert list(found) == ["AP", "OKS to FP32", "Size", "Latency"]
    assert found["AP"].difference == pytest.approx(-0.005)
    assert found["OKS to FP32"].difference == pytest.approx(-0.02)
    assert (found["OKS to FP32"].first_interval, found["OKS to FP32"].second_interval) == (
        (0.965, 0.9741),
        (0.94, 0.96),
    )
    assert found["Size"].difference == 1_234_567
    assert found["Latency"].remark == "2.00x as fast"
    assert [(one.row, one.name) for one in differences.lost] == [("net: ncnn INT8", "OKS to FP32")]
    others = [one for one in differences.figures if one.row != "net: ncnn INT8"]
    assert [one.name for one in others] == ["AP", "Size", "Latency"] * 2
    assert {one.difference for one in others} == {0}
    assert "**outside, tolerance 0.019**" in render(differences)


def test_latencies_of_two_runs_are_shown_and_not_compared(tmp_path: Path) -> None:
    def measured_again(content: dict[str, Any]) -> None:
        content["networks"][0]["measurement"]["run"] = "again"
        row_of(content, 1)["cost"]["latency"]["median_ms"] = 99.0

    differences = of_results(tmp_path, measured_again)
    found = figure(differences, "Latency", "ncnn FP32")
    assert (found.first, found.second, found.difference) == (12.345, 99.0, None)
    assert found.remark == "not measured in one run, so not compared"
    assert "as fast" not in render(differences)
    assert differences.passed


def test_rows_that_one_result_lacks_are_listed(tmp_path: Path) -> None:
    def renamed(content: dict[str, Any]) -> None:
        row_of(content, 2).update(variant="ncnn-int8-tuned", title="ncnn INT8 tuned")

    differences = of_results(tmp_path, renamed)
    assert (differences.only_in_first, differences.only_in_second) == (["net: ncnn INT8"], ["net: ncnn INT8 tuned"])
    assert differences.passed
    page = render(differences)
    assert "Only in A, so not compared: net: ncnn INT8." in page
    assert "Only in B, so not compared: net: ncnn INT8 tuned." in page


def test_certificate_that_is_gone_is_not_within_a_tolerance_of_oks(tmp_path: Path) -> None:
    differences = of_results(tmp_path, lambda content: row_of(content, 2).update(certificate=None), oks_tolerance=0.5)
    assert [one.name for one in differences.lost] == ["OKS to FP32"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda content: content["ground"].update(annotations_sha256="cafe"),
            "annotations sha256 is 'beef' and 'cafe'",
        ),
        (lambda content: content["ground"]["protocol"].update(flip_test=True), "their protocol is"),
        (lambda content: content["networks"][0]["spec"].update(padding=1.5), "the model net differs in padding"),
        (lambda content: content["networks"][0].update(name="other"), "no row is in both"),
    ],
    ids=["annotations", "protocol", "model", "rows"],
)
def test_results_of_other_ground_are_refused(tmp_path: Path, change: Change, message: str) -> None:
    with pytest.raises(InputError, match=rf"a\.json and .*b\.json cannot be compared: .*{message}"):
        of_results(tmp_path, change)


# The elements of JUnit's format that Jenkins, GitLab and GitHub's actions read: what each may hold, and its attributes.
JUNIT = {
    "testsuites": ({"testsuite"}, {"name", "tests", "failures", "errors", "time"}),
    "testsuite": ({"testcase"}, {"name", "tests", "failures", "errors", "skipped", "time"}),
    "testcase": ({"skipped", "failure", "system-out"}, {"classname", "name", "time"}),
    "failure": (set(), {"message", "type"}),
    "skipped": (set(), {"message"}),
    "system-out": (set(), set()),
}


def test_junit_has_a_case_for_each_figure(tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        worsened(content)
        content["networks"][0]["measurement"]["run"] = "again"
        del content["networks"][0]["rows"][0]

    differences = of_results(tmp_path, change, tolerance=0.001)
    root = minidom.parseString(junit(differences)).documentElement
    assert root is not None
    assert root.tagName == "testsuites"
    elements = [root, *root.getElementsByTagName("*")]
    for element in elements:
        children, attributes = JUNIT[element.tagName]
        assert set(element.attributes.keys()) == attributes, element.tagName
        assert {child.tagName for child in element.childNodes if isinstance(child, minidom.Element)} <= children
    number = {name: str(len(root.getElementsByTagName(name))) for name in ("testcase", "failure", "skipped")}
    for element in elements[:2]:
        assert element.getAttribute("tests") == number["testcase"]
        assert element.getAttribute("failures") == number["failure"]
    assert elements[1].getAttribute("skipped") == number["skipped"]
    # AP of ncnn and its INT8 with sizes and latencies, OKS of INT8, and the row that is gone.
    assert number == {"testcase": "8", "failure": "1", "skipped": "3"}
    (failure,) = root.getElementsByTagName("failure")
    parent = failure.parentNode
    assert isinstance(parent, minidom.Element)
    assert (parent.getAttribute("classname"), parent.getAttribute("name")) == ("net: ncnn INT8", "AP")
    assert failure.getAttribute("message") == "AP: loss 0.0050, limit 0.001, outside"


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--tolerance", "0.9"], 0, "**Within the tolerance.**"),
        (["--tolerance", "0.0001"], 3, "tolerance: 1 of 1 figure.**"),
        (["--tolerance", "0.0001", "--gate", "estimate"], 3, "**Outside the tolerance: 1 of 1 figure.**"),
        (["--annotations", "nowhere.json"], 1, "error: nowhere.json: no such file"),
        (["--tolerance", "-1"], 1, "error: the command line is not valid"),
        (["--tolerance", "little"], 2, "invalid float value: 'little'"),
    ],
)
def test_exit_status(case: Case, tmp_path: Path, options: list[str], status: int, said: str) -> None:
    out = {name: tmp_path / f"comparison.{name}" for name in ("md", "json", "xml")}
    inputs = [case.reference, case.predictions, "--annotations", case.annotations, "--resamples", "100"]
    outputs = ["--out", out["md"], "--out-json", out["json"], "--out-junit", out["xml"]]
    command = [sys.executable, *map(str, (SCRIPT, *inputs, *options, *outputs))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, said in done.stdout + done.stderr) == (status, True), done.stdout + done.stderr
    if status in (0, 3):
        assert out["md"].read_text() == done.stdout
        assert json.loads(out["json"].read_text())["passed"] == (status == 0)
        assert minidom.parse(str(out["xml"])).documentElement is not None
    else:
        assert not any(path.exists() for path in out.values())


def test_workflow_of_the_documentation_runs_what_there_is(case: Case, tmp_path: Path) -> None:
    """Its steps that compare, as bash runs them on GitHub, with files of the same names."""
    page = (ROOT / "docs/compare.md").read_text()
    (workflow,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    steps = [
        step for step in yaml.safe_load(workflow)["jobs"]["compare"]["steps"] if "compare.py" in step.get("run", "")
    ]
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    (tmp_path / "baseline").mkdir()
    small_result().write(tmp_path / "baseline/result.json")
    small_result().write(tmp_path / "results/demo/result.json")
    annotations = tmp_path / "results/demo/dataset/annotations/person_keypoints_val.json"
    annotations.parent.mkdir(parents=True)
    shutil.copy(case.annotations, annotations)
    for row, now in (("ncnn-int8", case.reference), ("ncnn-int8-tuned", case.predictions)):
        shutil.copy(case.reference, tmp_path / f"baseline/{row}.npz")
        folder = tmp_path / "results/demo/hourglass_demo" / row
        folder.mkdir(parents=True)
        shutil.copy(now, folder / "predictions.npz")
    environment = os.environ | {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    done = [
        subprocess.run(["bash", "-e", "-c", step["run"]], cwd=tmp_path, env=environment, check=False, text=True)
        for step in steps
    ]
    # One row lost, the other did not change; nor did the result.
    assert [one.returncode for one in done] == [3, 0]
    written = {path.name: "<failure" in path.read_text() for path in (tmp_path / "comparison").iterdir()}
    assert written == {"ncnn-int8.xml": False, "ncnn-int8-tuned.xml": True, "result.xml": False}
    assert (tmp_path / "summary.md").read_text().count("# Comparison\n") == 3
