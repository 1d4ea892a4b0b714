from dataclasses import replace
from typing import Any

import pytest

from posequant.base.errors import InputError
from posequant.base.model_spec import ModelSpec
from posequant.report.page import Certificate, Model, Row, render, variant_title

SPEC = ModelSpec(
    name="net",
    input_size=(192, 256),
    mean=(0, 0, 0),
    std=(1, 1, 1),
    to_rgb=True,
    padding=1.25,
    use_udp=False,
    codec={"type": "MSRAHeatmap"},
    flip_mode="heatmap",
    shift_heatmap=True,
    input_name="input",
    output_names=("output",),
)
CALIBRATION = {
    "seed": 7,
    "images": 2,
    "people": [{}, {}, {}],
    "annotations": {"sha256": "feed"},
    "evaluation": {"overlap": 0},
}


def row(variant: str, backend: str, precision: str, average_precision: float) -> Row:
    metrics: dict[str, Any] = {
        "model": "net",
        "variant": variant,
        "backend": backend,
        "precision": precision,
        "protocol": {"boxes": "ground-truth", "flip_test": False},
        "images": 10,
        "instances": 25,
        "sha256": {"model": "1", "artifact": {"net.bin": "2"}, "annotations": "beef", "detections": None},
        "versions": {backend: "1.0", "numpy": "2.0"},
        "statistics": {"AP": average_precision, "AP50": 0.9, "AP75": 0.8, "AR": 0.75, "AR50": 0.95},
    }
    cost = {"latency": {"median_ms": 12.345, "speedup": 2.5}, "size_bytes": 1_234_567, "cpu": "a CPU"}
    return Row(metrics, cost, f"demo/net/{variant}/evaluate.log")


@pytest.fixture
def rows() -> list[Row]:
    return [row("ncnn-int8", "ncnn", "int8", 0.57), row("pytorch", "pytorch", "fp32", 0.6)]


def cells(page: str, first: str) -> list[list[str]]:
    lines = [line for line in page.splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [line for line in table if line[0] == first]


def test_summary_states_difference_to_pytorch_and_share_kept(rows: list[Row]) -> None:
    page = render([Model(SPEC, "Net", "demo/net/onnx/operators.md", rows)], CALIBRATION, "result.svg")
    assert "## Net, 192x256" in page
    assert cells(page, "ncnn")[0] == ["ncnn", "INT8", "0.5700", "-0.0300", "95.00%", "1.23 MB", "12.35 ms", "2.50x"]
    assert cells(page, "PyTorch")[0][2:5] == ["0.6000", "reference", "100.00%"]


def test_every_variant_has_the_table_with_a_link_to_its_log(rows: list[Row]) -> None:
    page = render([Model(SPEC, "Net", "demo/net/onnx/operators.md", rows)], CALIBRATION, "result.svg")
    section = page.partition("## ncnn INT8\n")[2].partition("\n## ")[0]
    assert cells(section, "Arch") == [["Arch", "Input Size", "AP", "AP50", "AP75", "AR", "AR50", "log"]]
    assert cells(section, "Net") == [
        ["Net", "192x256", "0.5700", "0.9000", "0.8000", "0.7500", "0.9500", "[log](demo/net/ncnn-int8/evaluate.log)"]
    ]


def test_difference_that_rounds_to_zero_has_no_minus(rows: list[Row]) -> None:
    page = render(
        [Model(SPEC, "Net", "operators.md", [rows[1], row("ncnn", "ncnn", "fp32", 0.59999)])], CALIBRATION, "result.svg"
    )
    assert cells(page, "ncnn")[0][3] == "+0.0000"


def test_without_pytorch_onnxruntime_is_the_reference() -> None:
    rows = [row("ncnn", "ncnn", "fp32", 0.5), row("onnxruntime", "onnxruntime", "fp32", 0.5)]
    page = render([Model(SPEC, "Net", "demo/net/onnx/operators.md", rows)], CALIBRATION, "result.svg")
    assert cells(page, "ONNX Runtime")[0][3] == "reference"


def test_calibration_counts_people_and_images(rows: list[Row]) -> None:
    page = render([Model(SPEC, "Net", "demo/net/onnx/operators.md", rows)], CALIBRATION, "result.svg")
    assert cells(page, "People")[0][1] == "3"
    assert cells(page, "Shared with the evaluation images")[0][1] == "0"


def test_picture_is_shown(rows: list[Row]) -> None:
    page = render([Model(SPEC, "Net", "operators.md", rows)], CALIBRATION, "result.svg")
    assert "](result.svg)" in page


def test_versions_of_all_rows_are_listed_once(rows: list[Row]) -> None:
    page = render([Model(SPEC, "Net", "demo/net/onnx/operators.md", rows)], CALIBRATION, "result.svg")
    assert "ncnn 1.0, numpy 2.0, pytorch 1.0." in page


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("instances", 24, "instances is 25 and 24"),
        ("protocol", {"boxes": "ground-truth", "flip_test": True}, "protocol is"),
        ("sha256", {"model": "1", "annotations": "dead", "detections": None}, "sha256 of the annotations is"),
    ],
)
def test_rows_on_different_ground_are_refused(rows: list[Row], key: str, value: object, named: str) -> None:
    other = Row({**rows[1].metrics, key: value}, rows[1].cost, rows[1].log)
    with pytest.raises(InputError, match=f"net: ncnn-int8 and pytorch cannot be compared: {named}"):
        render([Model(SPEC, "Net", "demo/net/onnx/operators.md", [rows[0], other])], CALIBRATION, "result.svg")


@pytest.mark.parametrize(
    ("variant", "backend", "precision", "title"),
    [
        ("ncnn", "ncnn", "fp32", "ncnn FP32"),
        ("ncnn-int8", "ncnn", "int8", "ncnn INT8"),
        ("ncnn-int8-aciq", "ncnn", "int8", "ncnn INT8 aciq"),
        ("onnxruntime", "onnxruntime", "fp32", "ONNX Runtime FP32"),
    ],
)
def test_title(variant: str, backend: str, precision: str, title: str) -> None:
    assert variant_title(variant, backend, precision) == title


GROUND_TRUTH = {"boxes": "ground-truth", "flip_test": False}
FLIPPED = {"boxes": "ground-truth", "flip_test": True}


def published(average_precision: float, protocol: dict[str, Any], tolerance: float = 0.002) -> dict[str, Any]:
    return {
        "variants": ["pytorch", "openvino"],
        "protocol": protocol,
        "statistics": {"AP": average_precision, "AR": 0.75},
        "tolerance": tolerance,
        "source": "the paper",
    }


def page_with(rows: list[Row], *figures: dict[str, Any]) -> str:
    return render([Model(SPEC, "Net", "operators.md", rows, figures)], CALIBRATION, "result.svg")


def published_section(page: str) -> str:
    return page.partition("# Published figures\n")[2].partition("\n# ")[0]


def test_published_figures_stand_beside_the_measured_ones(rows: list[Row]) -> None:
    page = page_with(rows, published(0.5985, GROUND_TRUTH))
    section = published_section(page)
    table = [line for first in ("PyTorch FP32", "") for line in cells(section, first)]
    assert table == [
        ["PyTorch FP32", "measured", "0.6000", "0.7500", ""],
        ["", "published", "0.5985", "0.7500", "the paper"],
        ["", "difference", "+0.0015", "+0.0000", "within 0.002"],
    ]
    assert "ncnn INT8" not in section
    assert "Not as published" not in page


@pytest.mark.parametrize(("figure", "flagged"), [(0.602, False), (0.598, False), (0.6021, True), (0.5979, True)])
def test_row_outside_the_tolerance_is_flagged(rows: list[Row], figure: float, flagged: bool) -> None:
    page = page_with(rows, published(figure, GROUND_TRUTH))
    assert ("**outside 0.002: AP**" in published_section(page)) == flagged
    summary = page.partition("# Backends")[0]
    assert ("**Not as published: PyTorch FP32.**" in summary) == flagged


def test_figure_that_was_not_measured_is_flagged(rows: list[Row]) -> None:
    rows[1].metrics["statistics"]["APL"] = None  # nobody is large
    figures = published(0.6, GROUND_TRUTH) | {"statistics": {"AP": 0.6, "APL": 0.7}}
    section = published_section(page_with(rows, figures))
    assert cells(section, "PyTorch FP32")[0][2:4] == ["0.6000", "-"]
    assert "**outside 0.002: APL**" in section


def test_figures_under_another_protocol_are_listed_and_not_compared(rows: list[Row]) -> None:
    page = page_with(rows, published(0.9, FLIPPED))
    section = published_section(page)
    assert "under another protocol; not compared" in section
    assert cells(section, "pytorch, openvino") == [
        ["pytorch, openvino", "ground-truth", "yes", "AP 0.9000, AR 0.7500", "the paper"]
    ]
    assert "difference" not in section
    assert "Not as published" not in page


def test_page_without_published_figures_has_no_section_of_them(rows: list[Row]) -> None:
    assert "Published" not in page_with(rows)


def test_certified_row_states_its_interval_and_links_the_certificate(rows: list[Row]) -> None:
    content = {
        "statistics": {
            "AP": {"reference": 0.59, "candidate": 0.57, "difference": -0.02, "interval": [-0.031, -0.0095]}
        },
        "share_of_fp32": {
            "value": 0.9661,
            "interval": [0.95, 0.992],
            "targets": [{"target": 0.99, "verdict": "undecided"}, {"target": 0.999, "verdict": "not met"}],
        },
        "precision": "int8",
        "without_labels": {
            "oks": {"value": 0.97, "interval": [0.965, 0.9741]},
            "within": {"1": {"value": 0.81, "interval": [0.8, 0.8249]}, "4": {"value": 1, "interval": None}},
        },
        "outputs": {"sqnr_db": 21.34},
        "work": {"int8": 0.986},
        "overflow": {"can_overflow": []},
        "bootstrap": {"resamples": 2000, "seed": 0, "confidence": 0.95},
    }
    certificate = Certificate(content, "demo/net/ncnn-int8/certificate.md")
    certified = Row(rows[0].metrics, rows[0].cost, rows[0].log, certificate)
    page = render([Model(SPEC, "Net", "operators.md", [certified, rows[1]])], CALIBRATION, "result.svg")
    link = "[certificate](demo/net/ncnn-int8/certificate.md)"
    assert cells(page, "ncnn")[0][-1] == f"-0.0200 [-0.0310, -0.0095] ({link})"
    assert cells(page, "PyTorch")[0][-1] == ""
    near = ["ncnn INT8", "0.9700 [0.9650, 0.9741]", "81.0% [80.0%, 82.5%]", "100.0%"]
    assert cells(page.partition("# Backends")[0], "ncnn INT8") == [near]
    section = page.partition("# Certificates")[2].partition("\n# ")[0]
    assert cells(section, "Net") == [
        [
            "Net",
            "[ncnn INT8](demo/net/ncnn-int8/certificate.md)",
            "-0.0200 [-0.0310, -0.0095]",
            "96.61% [95.00%, 99.20%]",
            "undecided",
            "not met",
            "21.3 dB",
            "98.6%",
            "no layer",
        ]
    ]
    prepared = replace(certified, certificate=replace(certificate, recipe="demo/net/ncnn-int8/recipe.md"))
    page = page_with([prepared, rows[1]])
    assert cells(page, "ncnn")[0][-1].endswith(f"({link}, [recipe](demo/net/ncnn-int8/recipe.md))")
    unknown = Certificate(content | {"overflow": None}, certificate.link)
    page = page_with([replace(certified, certificate=unknown), rows[1]])
    assert cells(page.partition("# Certificates")[2], "Net")[0][-2:] == ["98.6%", "-"]
    floating = Certificate(content | {"overflow": None, "precision": "bf16"}, certificate.link)
    page = page_with([replace(certified, certificate=floating), rows[1]])
    assert cells(page.partition("# Certificates")[2], "Net")[0][-1] == "no layer"
    nobody = content | {"without_labels": {"oks": None, "within": None}}
    page = page_with([replace(certified, certificate=Certificate(nobody, certificate.link)), rows[1]])
    assert cells(page.partition("# Backends")[0], "ncnn INT8") == [["ncnn INT8", "-"]]
