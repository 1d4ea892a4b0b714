"""The real workflow, run on a small version of the demo study: what it makes, and what reruns after which change."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.browser import needs_browser, opened

ROOT = Path(__file__).parents[2]
PARTS = ("LICENSE", "Snakefile", "config.yaml", "docs", "envs", "models", "profiles", "rules", "scripts", "studies")
INT8 = ["openvino-int8", "onnxruntime-int8", "ncnn-int8", "ncnn-int8-tuned"]
REDUCED = ["ncnn-fp16", "ncnn-bf16", *INT8]
VARIANTS = ["pytorch", "onnxruntime", "openvino", "ncnn", *REDUCED]
MODEL = "results/demo/hourglass_demo"
SMALL: dict[str, Any] = {
    "dataset": {"synthetic": {"train_images": 12, "val_images": 12}},
    "calibration": {"people": 8},
    "attribution": ["ncnn-int8"],
    "variants": VARIANTS,
}
# What puts the result of a study together, each once.
REPORT = dict.fromkeys(("collect_network", "collect_result", "render_report", "render_result", "result"), 1)


# Runs a command where nothing can be reached but this machine, and writes down what it tried to reach.
CUT_OFF = ["unshare", "--map-root-user", "--net", "sh", "-c"]
COUNTING = 'ip link set lo up && "$@"; status=$?; cat /proc/net/snmp /proc/net/snmp6 > attempts.txt; exit $status'

# With these, packages that report their use do not.
SILENT = {"CI", "ORT_DISABLE_TELEMETRY"}
# Where they keep the number by which they tell users apart.
IDENTIFIERS = (".cache/Microsoft", "intel")


def can_be_cut_off() -> bool:
    """Whether this machine has the programs and the right to take the network away from a command."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*CUT_OFF, "ip link set lo up"], capture_output=True, check=False).returncode == 0


def attempts(folder: Path) -> dict[str, int]:
    """How often the last command that ran in `folder` under CUT_OFF sent, or had no way to send, by IP version."""
    text = (folder / "attempts.txt").read_text()
    names, values = re.findall(r"^Ip: (.*)$", text, flags=re.MULTILINE)
    version4 = dict(zip(names.split(), map(int, values.split()), strict=True))
    version6 = {name: int(count) for name, count in re.findall(r"^(Ip6\w+)\s+(\d+)$", text, flags=re.MULTILINE)}
    return {
        "4": version4["OutRequests"] + version4["OutNoRoutes"],
        "6": version6["Ip6OutRequests"] + version6["Ip6OutNoRoutes"],
    }


def copy_checkout(folder: Path) -> None:
    """Copy the parts of the project that a run needs."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / part, folder / part)


class Workflow:
    """A copy of the workflow in a folder of its own, with a small demo study."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(exist_ok=True)
        self.first_output = ""

    def configure(self, **study: Any) -> None:
        """Write small.yaml: the demo study with the given settings in place of its own."""
        (self.folder / "small.yaml").write_text(yaml.safe_dump({"studies": {"demo": study}}))

    def run(self, *arguments: str, succeeds: bool = True, cut_off: bool = False) -> str:
        command = [sys.executable, "-m", "snakemake", "-c4", *arguments, "--configfile", "small.yaml"]
        if cut_off:
            command = [*CUT_OFF, COUNTING, "sh", *command]
        # A parent's activated environment must not be what makes the programs found, nor what keeps them silent.
        environment = {name: value for name, value in os.environ.items() if name not in SILENT}
        environment |= {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(self.home)}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        output = done.stdout + done.stderr
        assert (done.returncode == 0) == succeeds, output
        return output

    def planned(self, *arguments: str) -> Counter[str]:
        """How many jobs of each rule a run would start."""
        output = self.run("-n", *arguments)
        print(output)  # the reason of each job, for a test that fails
        stats = re.search(r"Job stats:\n.*\n[- ]+\n((?:\S+ +\d+\n)+)", output)
        if stats is None:
            assert "Nothing to be done" in output, output
            return Counter()
        jobs = Counter({name: int(count) for name, count in re.findall(r"(\S+) +(\d+)\n", stats[1])})
        del jobs["total"]
        return jobs


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    folder = tmp_path_factory.mktemp("workflow")
    copy_checkout(folder)
    workflow = Workflow(folder)
    workflow.configure(**SMALL)
    workflow.first_output = workflow.run("results/result.md", cut_off=can_be_cut_off())
    return workflow


@pytest.fixture
def workflow(finished: Workflow) -> Workflow:
    """The finished workflow, with the study's settings put back."""
    finished.configure(**SMALL)
    return finished


needs_cut_off = pytest.mark.skipif(
    not can_be_cut_off(), reason="needs `unshare --net` and `ip`, and the right to use them"
)


@needs_cut_off
def test_a_run_tries_no_connection(finished: Workflow) -> None:
    assert attempts(finished.folder) == {"4": 0, "6": 0}


def test_no_package_prepares_to_report_its_use(finished: Workflow) -> None:
    """Reports are sent now and then; what is there from the start is the user's number."""
    assert [name for name in IDENTIFIERS if (finished.home / name).exists()] == []


@needs_cut_off
def test_a_package_that_prepares_to_report_its_use_would_be_seen(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in SILENT} | {"HOME": str(tmp_path)}
    command = [*CUT_OFF, COUNTING, "sh", sys.executable, "-c", "import onnxruntime"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    assert [name for name in IDENTIFIERS if (tmp_path / name).exists()] == [".cache/Microsoft"]


@needs_cut_off
@pytest.mark.parametrize(
    ("reach", "seen"),
    [
        ("socket.getaddrinfo('posequant.invalid', 443)", {"4"}),
        ("socket.create_connection(('192.0.2.1', 443))", {"4"}),
        ("socket.create_connection(('2001:db8::1', 443))", {"6"}),
    ],
)
def test_an_attempt_to_connect_would_be_seen(reach: str, seen: set[str], tmp_path: Path) -> None:
    command = [*CUT_OFF, COUNTING, "sh", sys.executable, "-c", f"import socket; {reach}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "socket.gaierror" in done.stderr or "Network is unreachable" in done.stderr
    assert {version for version, count in attempts(tmp_path).items() if count} == seen


def test_result_has_a_row_and_a_section_for_every_variant(workflow: Workflow) -> None:
    page = (workflow.folder / "results/result.md").read_text()
    sections = re.findall(r"^## (.*)$", page.partition("# Backends")[2], flags=re.MULTILINE)
    assert sections == [
        "PyTorch FP32",
        "ONNX Runtime FP32",
        "OpenVINO FP32",
        "ncnn FP32",
        "ncnn FP16",
        "ncnn BF16",
        "OpenVINO INT8",
        "ONNX Runtime INT8",
        "ncnn INT8",
        "ncnn INT8 tuned",
    ]
    links = re.findall(r"\[log\]\((.*?)\)", page)
    assert len(links) == len(VARIANTS)
    for link in links:
        assert "Average Precision" in (workflow.folder / "results" / link).read_text()


def test_dry_run_says_why_each_job_would_run(finished: Workflow) -> None:
    output = finished.run("-n", "-f", f"{MODEL}/ncnn-int8/metrics.json")
    assert "rule evaluate:" in output
    assert "reason: Forced execution" in output


def test_terminal_has_the_plan_a_line_a_job_and_the_summary(finished: Workflow) -> None:
    lines = finished.first_output.splitlines()
    jobs = [line for line in lines if re.match(r"\[ *\d+/\d+\] ", line)]
    (total,) = {line.partition("/")[2].partition("]")[0] for line in jobs}
    assert len(jobs) == int(total) > len(VARIANTS)
    assert len(lines) <= len(jobs) + 68
    assert "Job stats:" in lines
    assert any(re.match(r"Estimate: about \d+ (s|min) on \d+ cores?, \d+ MB of disk \(", line) for line in lines)
    summary = lines[lines.index("## Hourglass (demo), 128x128") :]
    rows = [line for line in summary if line.startswith(("PyTorch ", "ONNX Runtime ", "OpenVINO ", "ncnn "))]
    assert len(rows) == len(VARIANTS)
    verdicts = [line for line in summary if re.match(r"- \w.*: (within|outside|undecided)", line)]
    assert len(verdicts) == len(REDUCED)
    assert "The page: results/demo/result.md" in summary


def test_the_result_is_a_copy_of_the_studys_page(workflow: Workflow) -> None:
    page, copy = ((workflow.folder / "results" / name).read_text() for name in ("demo/result.md", "result.md"))
    assert "](figures/difference.svg)" in page
    assert "](demo/figures/difference.svg)" in copy
    assert copy.replace("](demo/", "](") == page
    for folder, text in (("results/demo", page), ("results", copy)):
        links = re.findall(r"\]\(([^)#:]+)\)", text)
        assert links
        assert all((workflow.folder / folder / link).is_file() for link in links)


def test_two_studies_run_at_once_by_their_own_targets(workflow: Workflow) -> None:
    images = {"synthetic": {"train_images": 2, "val_images": 2}}
    drawn = {"dataset": images, "calibration": {"people": 2}, "variants": ["ncnn"]}
    models = yaml.safe_load((workflow.folder / "config.yaml").read_text())["studies"]["demo"]["models"]
    studies = {name: {**drawn, "models": models} for name in ("one", "two")}
    (workflow.folder / "small.yaml").write_text(yaml.safe_dump({"studies": {"demo": SMALL, **studies}}))
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda study: workflow.run(f"results/{study}/calibration.json"), studies))
    assert all((workflow.folder / f"results/{study}/calibration.json").is_file() for study in studies)


def test_what_nothing_makes_any_more_is_named(workflow: Workflow) -> None:
    old = workflow.folder / MODEL / "ncnn/cost.json"
    old.touch()
    try:
        output = workflow.run("-f", "results/result.md")
        assert "notice: in results/demo, this version neither makes nor reads cost.json." in output
    finally:
        old.unlink()
    assert "notice: " not in workflow.run("-f", "results/result.md")


def test_reduced_precision_is_certified(workflow: Workflow) -> None:
    page = (workflow.folder / "results/result.md").read_text()
    links = re.findall(r"\[certificate\]\((.*?)\)", page)
    assert links == [f"{MODEL.removeprefix('results/')}/{variant}/certificate.md" for variant in REDUCED]
    for variant, link in zip(REDUCED, links, strict=True):
        assert f"Certificate of {variant}" in (workflow.folder / "results" / link).read_text()
        certificate = json.loads((workflow.folder / MODEL / variant / "certificate.json").read_text())
        assert certificate["reference"] == variant.partition("-")[0]
        for name, key in ((variant, "candidate"), (certificate["reference"], "reference")):
            metrics = json.loads((workflow.folder / MODEL / name / "metrics.json").read_text())
            assert certificate["statistics"]["AP"][key] == pytest.approx(metrics["statistics"]["AP"], abs=1e-12)
        assert (certificate["work"]["int8"] > 0.99) == (variant in INT8)
        assert certificate["without_labels"]["oks"]["interval"]
    # The last is ncnn's.
    assert certificate["overflow"]["can_overflow"] == []
    assert certificate["overflow"]["winograd_on_and_off"]["equal"]


def test_changing_the_certificate_reruns_nothing_else(workflow: Workflow) -> None:
    workflow.configure(**SMALL | {"certificate": {"resamples": 500}})
    assert workflow.planned("results/result.md") == {"certify": len(REDUCED)} | REPORT


def test_float_backends_agree(workflow: Workflow) -> None:
    precisions = {
        variant: json.loads((workflow.folder / MODEL / variant / "metrics.json").read_text())["statistics"]["AP"]
        for variant in ("pytorch", "onnxruntime", "openvino", "ncnn")
    }
    assert precisions["pytorch"] > 0.3
    for variant, average_precision in precisions.items():
        assert average_precision == pytest.approx(precisions["pytorch"], abs=0.001), variant


def test_second_run_has_nothing_to_do(workflow: Workflow) -> None:
    assert workflow.planned("results/result.md") == {}


def test_rerunning_one_backend_runs_its_evaluation_alone(workflow: Workflow) -> None:
    assert workflow.planned("-f", f"{MODEL}/ncnn-int8/metrics.json") == {"evaluate": 1}
    again = workflow.planned(f"{MODEL}/ncnn-int8/metrics.json", "-R", "predict")
    assert again == {"predict": 1, "evaluate": 1}


@pytest.mark.parametrize(("rule", "variant"), [("quantize_openvino", INT8[0]), ("quantize_onnxruntime", INT8[1])])
def test_quantizing_anew_for_one_backend_runs_nothing_of_another(workflow: Workflow, rule: str, variant: str) -> None:
    jobs = dict.fromkeys((rule, "predict", "evaluate", "certify", "pictures", "latency"), 1) | REPORT
    assert workflow.planned("results/result.md", "--forcerun", f"{MODEL}/{variant}/quantize.json") == jobs
    planned = workflow.planned("-f", f"{MODEL}/{variant}/metrics.json")
    assert planned == {"evaluate": 1}


def test_changing_the_calibration_people_quantizes_for_every_backend(workflow: Workflow) -> None:
    workflow.configure(**SMALL | {"calibration": {"people": 6}})
    jobs = workflow.planned("results/result.md")
    assert jobs["quantize_openvino"] == jobs["quantize_onnxruntime"] == jobs["ncnn2table"] == 1


def test_crops_are_cut_once_for_all_rows(workflow: Workflow) -> None:
    crops = json.loads((workflow.folder / MODEL / "crops/1-of-1/crops.json").read_text())
    metrics = json.loads((workflow.folder / MODEL / "pytorch/metrics.json").read_text())
    assert crops["kept"]
    assert crops["people"] == metrics["instances"]
    again = workflow.planned(f"{MODEL}/ncnn-int8/metrics.json", "-R", "evaluation_crops")
    assert again == {"evaluation_crops": 1, "predict": 1, "evaluate": 1}


def test_rows_are_the_same_where_crops_are_too_large_to_be_kept(workflow: Workflow, tmp_path: Path) -> None:
    other = Workflow(shutil.copytree(workflow.folder, tmp_path / "other", symlinks=True))
    predictions = f"{MODEL}/ncnn-int8/predictions.npz"
    from_kept = (other.folder / predictions).read_bytes()
    other.configure(**SMALL | {"crops": {"limit_gb": 0}})
    assert other.planned(predictions) == {"evaluation_crops": 1, "predict": 1, "evaluate": 1}
    other.run(predictions)
    assert not (other.folder / MODEL / "crops/1-of-1/crops.npy").exists()
    assert (other.folder / predictions).read_bytes() == from_kept


@pytest.mark.parametrize(("rule", "file"), [("latency", "latency.json"), ("layer_times", "ncnn-int8/layer-times.json")])
def test_what_measures_time_reserves_all_cores(workflow: Workflow, rule: str, file: str) -> None:
    plan = workflow.run("-n", f"{MODEL}/{file}", "-c7", "-R", rule)
    job = plan.partition(f"rule {rule}:")[2].partition("resources:")[0]
    assert "threads: 7" in job, plan


def test_changing_the_protocol_reruns_predictions(workflow: Workflow) -> None:
    workflow.configure(**SMALL | {"protocol": {"flip_test": True}})
    jobs = dict.fromkeys(("predict", "evaluate"), len(VARIANTS))
    assert workflow.planned("results/result.md") == jobs | dict.fromkeys(("certify", "pictures"), len(REDUCED)) | REPORT


def test_subset_reruns_evaluation_alone_and_going_back_no_prediction(workflow: Workflow, tmp_path: Path) -> None:
    quick = Workflow(shutil.copytree(workflow.folder, tmp_path / "quick", symlinks=True))
    jobs = dict.fromkeys(("evaluation_people", "evaluation_crops"), 1)
    jobs |= dict.fromkeys(("predict", "evaluate"), len(VARIANTS))
    jobs |= dict.fromkeys(("certify", "pictures"), len(REDUCED)) | REPORT
    assert quick.planned("results/result.md", "--config", "people=6") == jobs
    page, metrics = f"{MODEL}/ncnn-fp16/certificate.md", quick.folder / MODEL / "ncnn-fp16/metrics.json"
    whole = metrics.read_bytes()
    quick.run(page, "--config", "people=6")
    assert json.loads(metrics.read_text())["protocol"] == {
        "boxes": "ground-truth",
        "flip_test": False,
        "people": 6,
        "seed": 0,
    }
    assert "images chosen at random, seed 0, until they held 6 people" in (quick.folder / page).read_text()
    assert quick.planned(page) == {"evaluate": 2, "certify": 1}
    quick.run(str(metrics.relative_to(quick.folder)))
    assert metrics.read_bytes() == whole


def test_shards_give_the_same_bytes(workflow: Workflow, tmp_path: Path) -> None:
    sharded = Workflow(shutil.copytree(workflow.folder, tmp_path / "sharded", symlinks=True))
    # PyTorch takes a chunk as one batch: it would tell if one was cut.
    predictions = f"{MODEL}/pytorch/predictions.npz"
    unsharded = (sharded.folder / predictions).read_bytes()
    (sharded.folder / predictions).unlink()
    sharded.configure(**SMALL | {"shards": 3})
    assert sharded.planned(predictions) == {"evaluation_crops": 3, "predict": 3, "evaluate": 1}
    sharded.run(predictions)
    assert (sharded.folder / predictions).read_bytes() == unsharded


def test_shards_are_sized_by_time_and_stay_as_they_were(workflow: Workflow) -> None:
    # 200 images of one and a half people; no shard has fewer than 64.
    wide = {
        "dataset": {"synthetic": {"train_images": 2, "val_images": 200}},
        "calibration": {"people": 2},
        "variants": ["ncnn"],
        "models": yaml.safe_load((workflow.folder / "config.yaml").read_text())["studies"]["demo"]["models"],
    }

    def shards(**settings: Any) -> int:
        studies = {"demo": SMALL, "wide": wide | settings}
        (workflow.folder / "small.yaml").write_text(yaml.safe_dump({"studies": studies}))
        return workflow.planned("results/wide/hourglass_demo/ncnn/metrics.json")["predict"]

    assert (shards(), shards(shard_minutes=0.0001), shards(shard_minutes=0.0001, shards=2)) == (1, 4, 2)
    log = workflow.folder / "results/wide/hourglass_demo/crops/1-of-3.log"
    log.parent.mkdir(parents=True)
    log.touch()
    assert (shards(), shards(shard_minutes=0.0001)) == (3, 3)
    shutil.rmtree(workflow.folder / "results/wide")
    # The finished study has one shard, and keeps it; the result says what the settings are by now.
    workflow.configure(**SMALL | {"shard_minutes": 0.0001})
    assert workflow.planned("results/result.md") == REPORT


def test_finished_study_is_pruned_and_goes_on(workflow: Workflow, tmp_path: Path) -> None:
    pruned = Workflow(shutil.copytree(workflow.folder, tmp_path / "pruned", symlinks=True))
    pruned.configure(**SMALL | {"certificate": {"resamples": 500}})
    refused = pruned.run("prune", succeeds=False)
    jobs = len(REDUCED) + len(REPORT.keys() - {"result"})
    assert f"result.md is not up to date: {jobs} jobs are still to run. Nothing was removed." in refused
    assert (pruned.folder / MODEL / "crops/1-of-1/crops.npy").is_file()
    pruned.configure(**SMALL)

    said = pruned.run("prune")
    of_recipe = ("ncnn-int8-tuned/prepared.bin", "ncnn-int8-tuned/reference.bin")
    for removed in ("crops/1-of-1/crops.npy", "ncnn-int8/shards/1-of-1.npz", *of_recipe):
        assert not (pruned.folder / MODEL / removed).exists()
    assert re.search(r"removed \d+ MB, 1 file: results/demo/\*/crops/\*\*/\*-of-\*\n", said), said
    assert re.search(r"\n\d+ MB freed\n", said), said
    assert pruned.planned("results/result.md") == {}

    # One row made anew makes what it needs, and nothing of another.
    predictions = pruned.folder / MODEL / "ncnn-int8/predictions.npz"
    before = predictions.read_bytes()
    predictions.unlink()
    assert pruned.planned(f"{MODEL}/ncnn-int8/metrics.json", f"{MODEL}/ncnn-int8/predictions.npz") == {
        "predict": 1,
        "evaluate": 1,
    }
    pruned.run(f"{MODEL}/ncnn-int8/predictions.npz")
    assert predictions.read_bytes() == before


@needs_browser
def test_snakemakes_report_opens_with_the_result_two_clicks_away(workflow: Workflow) -> None:
    workflow.run("results/result.md", "--report", "snakemake.html")
    with opened(workflow.folder / "snakemake.html", complaints=("error",)) as page:
        page.get_by_text("PoseQuant takes a top-down human-pose network").wait_for()
        page.get_by_role("link", name="Certificates").click()
        shown = page.locator("body").inner_text()
        assert "ncnn-int8-tuned" in shown
        assert "hourglass_demo" in shown


@needs_browser
def test_report_of_the_study_opens_offline(workflow: Workflow) -> None:
    report = workflow.folder / "results/demo/report.html"
    assert report.stat().st_size < 8_000_000
    with opened(report) as page:
        page.get_by_role("heading", name="All rows").wait_for()
        assert page.locator(".card").count() == len(REDUCED)
        assert page.locator(".person svg image").count() > 0
        page.get_by_role("link", name="Layers of ncnn INT8").click()
        assert "Where the error of ncnn-int8 comes from" in page.locator("dialog[open]").inner_text()


def test_removing_a_variant_reruns_only_latencies_and_report(workflow: Workflow) -> None:
    workflow.configure(**SMALL | {"variants": VARIANTS[:-1]})
    assert workflow.planned("results/result.md") == {"latency": 1} | REPORT


def test_row_by_itself_needs_no_latency(workflow: Workflow) -> None:
    jobs = workflow.planned("-F", f"{MODEL}/ncnn-int8/metrics.json")
    assert jobs["predict"] == jobs["evaluate"] == 1
    assert "latency" not in jobs


@pytest.mark.parametrize(
    ("network", "target", "log"),
    [
        ("ncnn-int8/model.bin", "ncnn-int8/certificate.json", "ncnn-int8/shards/1-of-1.log"),
        ("onnx/simplified.onnx", "converted/ncnn-fp32.param", "converted/convert_ncnn-fp32.log"),
    ],
)
def test_network_with_a_flipped_bit_is_neither_scored_nor_converted(
    workflow: Workflow, tmp_path: Path, network: str, target: str, log: str
) -> None:
    other = Workflow(shutil.copytree(workflow.folder, tmp_path / "other", symlinks=True))
    path = other.folder / MODEL / network
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    other.run(f"{MODEL}/{target}", succeeds=False)
    said = (other.folder / MODEL / log).read_text()
    assert f"error: {MODEL}/{network}: changed after it was made" in said


def test_page_is_not_rendered_from_figures_of_two_networks(workflow: Workflow, tmp_path: Path) -> None:
    other = Workflow(shutil.copytree(workflow.folder, tmp_path / "other", symlinks=True))
    measured = other.folder / MODEL / "latency.json"
    content = json.loads(measured.read_text())
    assert content["rows"]["ncnn"]["sha256"] != content["rows"]["ncnn-fp16"]["sha256"]
    content["rows"]["ncnn"]["sha256"] = content["rows"]["ncnn-fp16"]["sha256"]
    measured.write_text(json.dumps(content))
    other.run("results/demo/result.md", succeeds=False)
    said = (other.folder / MODEL / "collect_network.log").read_text()
    assert f"{MODEL}/ncnn/metrics.json: made with another network than the row's latency" in said


def test_latencies_of_all_rows_are_measured_in_one_run(workflow: Workflow) -> None:
    measured = json.loads((workflow.folder / MODEL / "latency.json").read_text())
    assert list(measured["rows"]) == VARIANTS
    assert measured["rows"]["onnxruntime"]["latency"]["speedup"] == 1


def test_editing_the_decoder_reruns_predictions_and_not_the_export(workflow: Workflow) -> None:
    decoder = workflow.folder / "scripts/posequant/evaluate/decode.py"
    original, modified = decoder.read_text(), decoder.stat().st_mtime
    decoder.write_text(original + "\n# edited\n")
    try:
        assert workflow.planned("results/result.md") == {
            "predict": len(VARIANTS),
            "evaluate": len(VARIANTS),
            "certify": len(REDUCED),
            "pictures": len(REDUCED),
            # A recipe may decode poses, for a budget.
            **dict.fromkeys(("apply_recipe", "ncnn2int8", "attribute", "render_attribution", "latency"), 1),
            **REPORT,
        }
    finally:
        decoder.write_text(original)
        os.utime(decoder, (modified, modified))


@pytest.mark.parametrize(
    ("stage", "expected"),
    [("config", {}), ("certify", {"certify": len(REDUCED)} | REPORT)],
)
def test_editing_the_settings_of_a_stage_reruns_this_stage_only(
    workflow: Workflow, stage: str, expected: dict[str, int]
) -> None:
    settings = workflow.folder / f"scripts/posequant/workflow/settings/{stage}.py"
    original = settings.read_text()
    settings.write_text(original + "\n# edited\n")
    try:
        assert workflow.planned("results/result.md") == expected
    finally:
        settings.write_text(original)


def test_throughput_has_a_line_for_every_variant(workflow: Workflow) -> None:
    workflow.configure(**SMALL | {"variants": ["pytorch", "ncnn-int8"]})
    output = workflow.run("bench")
    lines = (workflow.folder / "results/demo/throughput.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines[1:]] == [
        ["hourglass_demo", "pytorch"],
        ["hourglass_demo", "ncnn-int8"],
    ]
    assert "ncnn-int8" in (workflow.folder / "results/demo/throughput.md").read_text()
    assert "The page: results/demo/throughput.md" in output


def test_changing_the_calibration_method_reruns_only_the_int8_model(workflow: Workflow) -> None:
    jobs = workflow.planned("results/result.md", "--config", "variants={ncnn-int8: {calibration: aciq}}")
    rules = ("ncnn2table", "ncnn2int8", "predict", "evaluate", "certify", "pictures", "latency")
    attribution = ("attribute", "layer_times", "render_attribution")
    assert jobs == dict.fromkeys(rules + attribution, 1) | REPORT


def test_changing_a_recipe_reruns_only_its_int8_model(workflow: Workflow) -> None:
    steps = "[{weights: {}}, {activations: {method: mse}}]"
    jobs = workflow.planned("results/result.md", "--config", f"recipes={{tuned: {steps}}}")
    rules = ("apply_recipe", "ncnn2int8", "predict", "evaluate", "certify", "pictures", "latency")
    assert jobs == dict.fromkeys(rules, 1) | REPORT


def test_recipe_is_recorded(workflow: Workflow) -> None:
    record = json.loads((workflow.folder / MODEL / "ncnn-int8-tuned/recipe.json").read_text())
    assert [name for step in record["recipe"] for name in step] == [
        *("split-deconvolutions", "keep-float", "weights", "activations", "equalize", "weights", "activations"),
        *("activations", "center", "correct-bias", "round", "correct-bias"),
    ]
    # Of eight people, half are seen, a quarter decides and a quarter tells the outcome.
    assert record["people"] == {"calibrated": 4, "measured": 2, "telling": 2}
    assert record["outcome"]["oks_loss"]["interval"]
    assert record["target"] == "any"
    # What each step bought is measured once all layers have their scales.
    assert [rung["step"] for rung in record["rungs"]][-4:] == ["center", "correct-bias", "round", "correct-bias"]
    page = (workflow.folder / "results/result.md").read_text()
    assert f"[recipe]({MODEL.removeprefix('results/')}/ncnn-int8-tuned/recipe.md)" in page


def test_budget_is_held_on_request(workflow: Workflow) -> None:
    page = f"{MODEL}/ncnn-int8-auto/recipe.md"
    jobs = workflow.planned(page)
    assert jobs == {"apply_recipe": 1}
    workflow.run(page)
    record = json.loads((workflow.folder / page).with_suffix(".json").read_text())
    assert record["people"] == {"calibrated": 4, "measured": 2, "telling": 2}
    assert record["rungs"][0]["step"] == "split-deconvolutions; weights (8, absmax); activations (mse)"
    assert all(rung["ap_loss"]["interval"] for rung in record["rungs"])
    assert record["outcome"]["oks_loss"]["interval"]
    assert "](recipe.svg)" in (workflow.folder / page).read_text()
    assert (workflow.folder / page).with_suffix(".svg").is_file()


def test_attribution_is_made_on_request(workflow: Workflow) -> None:
    page = f"{MODEL}/ncnn-int8-tuned/attribution.md"
    assert workflow.planned(page) == dict.fromkeys(("attribute", "layer_times", "render_attribution"), 1)
    workflow.run(page)
    assert "Where the error of ncnn-int8-tuned comes from" in (workflow.folder / page).read_text()
    assert workflow.planned("results/result.md") == {}


def test_comparison_of_two_rows_is_made_on_request_and_may_say_that_something_was_lost(workflow: Workflow) -> None:
    page = f"{MODEL}/ncnn-int8/against/ncnn/comparison.md"
    assert workflow.planned(page) == {"compare": 1}
    workflow.run(page)
    found = json.loads((workflow.folder / page).with_suffix(".json").read_text())
    certificate = json.loads((workflow.folder / MODEL / "ncnn-int8/certificate.json").read_text())
    assert found["figures"][0]["interval"] == certificate["statistics"]["AP"]["interval"]
    # Twelve images do not tell that so little was lost.
    assert not found["passed"]
    assert "<failure" in (workflow.folder / page).with_suffix(".xml").read_text()
    assert workflow.planned("results/result.md") == {}


def test_package_is_made_on_request(workflow: Workflow, tmp_path: Path) -> None:
    rows = {"ncnn-int8-tuned": True, "ncnn": False}
    workflow.run(*(f"{MODEL}/{row}/package.zip" for row in rows))
    for row, certified in rows.items():
        with zipfile.ZipFile(workflow.folder / MODEL / row / "package.zip") as archive:
            archive.extractall(tmp_path / row)
        described = json.loads((tmp_path / row / "model.json").read_text())
        assert described["license"] == "Apache-2.0"
        assert (described["certificate"] is not None) == certified
        for name in ("model.table", "certificate.md", "certificate.json") if certified else ():
            assert (tmp_path / row / name).read_bytes() == (workflow.folder / MODEL / row / name).read_bytes()
        done = subprocess.run(
            [sys.executable, str(tmp_path / row / "pose.py"), "--self-test"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    refused = workflow.run("-n", f"{MODEL}/pytorch/package.zip", succeeds=False)
    assert f"No rule to produce {MODEL}/pytorch/package.zip" in refused


def test_arm_that_is_not_set_up_stops_before_any_job(workflow: Workflow) -> None:
    output = workflow.run(f"{MODEL}/ncnn-int8/arm/certificate.md", succeeds=False)
    assert "ARM is not emulated here yet" in output
    assert "Set it up with `make arm`" in output
    assert "rule emulate_arm" not in output


@pytest.mark.skipif(not (ROOT / ".arm").is_dir(), reason="ARM is not emulated here: run `make arm`")
def test_certificate_of_an_emulated_core_is_made_on_request(workflow: Workflow, tmp_path: Path) -> None:
    apart = Workflow(shutil.copytree(workflow.folder, tmp_path / "arm", symlinks=True))
    (apart.folder / ".arm").symlink_to(ROOT / ".arm")
    apart.configure(**SMALL, arm={"people": 4, "cores": ["cortex-a76"]})
    page = f"{MODEL}/ncnn-int8/arm/certificate.md"
    apart.run(page)
    certificate = json.loads((apart.folder / page).with_suffix(".json").read_text())
    (core,) = certificate["cores"]
    assert core["to_x86"]["fp32"]["sqnr_db"] > 100
    # A network of dense convolutions rounds as on x86.
    assert core["to_x86"]["int8"]["sqnr_db"] is None
    assert core["with_x86"]["without_labels"]["oks"]["value"] == 1
    assert "**cortex-a76: as on x86.**" in (apart.folder / page).read_text()
    assert apart.planned(page) == {}


def test_curve_is_made_on_request(workflow: Workflow) -> None:
    workflow.configure(**SMALL | {"curve": {"people": [4, 8, 999], "seeds": [0, 1]}})
    pages = [f"{MODEL}/{variant}/curve.md" for variant in ("ncnn-int8", "ncnn-int8-tuned")]
    assert workflow.planned(*pages) == {"curve": 2}
    workflow.run(*pages)
    for page in pages:
        table = (workflow.folder / page).with_suffix(".csv").read_text().splitlines()
        assert [line.split(",")[:2] for line in table[1:]] == [["0", "4"], ["0", "8"], ["1", "4"], ["1", "8"]]
        assert "left out: [999]" in (workflow.folder / page).with_suffix(".log").read_text()
    # The study calibrates on eight people with seed 0, too.
    metrics = json.loads((workflow.folder / MODEL / "ncnn-int8/metrics.json").read_text())
    curve = (workflow.folder / pages[0]).with_suffix(".csv").read_text().splitlines()
    assert float(curve[2].split(",")[2]) == pytest.approx(metrics["statistics"]["AP"], abs=1e-9)


def test_unknown_key_stops_before_any_job(workflow: Workflow) -> None:
    workflow.configure(callibration={"people": 8})
    output = workflow.run("results/result.md", succeeds=False)
    assert "studies.demo: unknown key 'callibration'; did you mean 'calibration'?" in output
    assert "Traceback" not in output


def test_doubled_key_stops_before_any_job(workflow: Workflow) -> None:
    text = (workflow.folder / "small.yaml").read_text()
    (workflow.folder / "small.yaml").write_text(f"{text}studies:\n  demo: {{}}\n")
    output = workflow.run("results/result.md", succeeds=False)
    assert f"small.yaml:{len(text.splitlines()) + 1}: the key 'studies' is in line 1 already" in output


def test_calibrating_on_the_evaluation_set_is_refused(workflow: Workflow) -> None:
    split = {
        "images": "results/demo/dataset/val",
        "annotations": "results/demo/dataset/annotations/person_keypoints_val.json",
    }
    model = yaml.safe_load((workflow.folder / "config.yaml").read_text())["studies"]["demo"]["models"]
    leaky = {
        "dataset": {"train": split, "val": split},
        "calibration": {"people": 8},
        "models": model,
        "variants": ["ncnn-int8"],
    }
    # The demo's settings stay: its data is evaluated on, and the tests that follow use it.
    (workflow.folder / "small.yaml").write_text(yaml.safe_dump({"studies": {"demo": SMALL, "leaky": leaky}}))
    output = workflow.run("results/result.md", "--config", "study=leaky", succeeds=False)
    assert "are evaluation images" in (workflow.folder / "results/leaky/calibration_set.log").read_text()
    assert "error: " in output
    assert not (workflow.folder / "results/leaky/calibration.json").exists()
