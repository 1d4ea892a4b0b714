"""The overview of a study of many networks: its best rows, its links, and what was left out."""

from typing import Any

from tests.unit.result_fixtures import (
    CALIBRATION,
    certificate,
    compared,
    cost,
    estimate,
    latency,
    metrics,
    network_records,
    row_records,
    settings,
)

from posequant.report.collect import NetworkRecords, collect
from posequant.report.figures import MOST_NETWORKS, NAMES, draw
from posequant.report.overview import best_row, overview
from posequant.report.page import render
from posequant.report.result import Result
from posequant.workflow.terminal import summary

# Loss of OKS with its interval, and speed against ONNX Runtime, of rows in INT8; the fixtures tolerate a loss of 0.03.
Losses = dict[str, tuple[float, float, float, float]]
WITHIN_SLOW, WITHIN_FAST = (0.01, 0.005, 0.02, 1.5), (0.02, 0.015, 0.025, 3.0)
UNDECIDED, OUTSIDE = (0.03, 0.02, 0.04, 4.0), (0.06, 0.05, 0.07, 5.0)


def network(name: str, losses: Losses) -> NetworkRecords:
    """A network with a row in FP32, and rows in INT8 that lose so much."""
    rows = [row_records(metrics("onnxruntime", "onnxruntime", "fp32", 0.6, model=name))]
    costs: dict[str, dict[str, Any]] = {}
    for variant, (loss, low, high, speed) in losses.items():
        of = metrics(variant, "ncnn", "int8", 0.59, model=name)
        lost = certificate(of, "ncnn", statistics={"AP": compared(0.59, 0.59, -0.001, 0.001)})
        lost["without_labels"]["oks"] = estimate(1 - loss, 1 - high, 1 - low)
        rows.append(row_records(of, lost))
        costs[variant] = cost(of, latency=latency(10.0) | {"speedup": speed})
    return network_records(rows, name, costs)


def study(networks: list[NetworkRecords], left_out: Any = None, **of_networks: Any) -> Result:
    said = settings(networks, **of_networks)
    said["studies"]["mine"]["left_out"] = left_out or {}
    return collect("mine", said, networks, CALIBRATION)


def best_of(**losses: tuple[float, float, float, float]) -> str:
    return best_row(study([network("net", losses)]).networks[0]).variant


def many(number: int, **changed: Any) -> Result:
    return study([network(f"net{place}", {"int8": WITHIN_FAST}) for place in range(number)], **changed)


def test_best_row_is_the_fastest_within_the_tolerance() -> None:
    assert best_of(slow=WITHIN_SLOW, fast=WITHIN_FAST, faster=UNDECIDED, fastest=OUTSIDE) == "fast"


def test_best_row_where_none_is_within_is_the_nearest_and_not_one_outside() -> None:
    assert best_of(far=OUTSIDE, near=UNDECIDED) == "near"
    assert best_of(far=OUTSIDE, farther=(0.09, 0.08, 0.1, 9.0)) == "far"


def test_best_row_without_reduced_precision_is_the_reference() -> None:
    assert best_of() == "onnxruntime"


def test_line_of_a_network_says_what_is_published_measured_and_best() -> None:
    published = [
        {
            "variants": ["onnxruntime"],
            "protocol": {"boxes": "ground-truth", "flip_test": False},
            "statistics": {"AP": 0.602},
            "tolerance": 0.002,
            "source": "elsewhere",
        }
    ]
    heading, table, *_ = overview(many(4, published=published))
    assert heading == "## Networks"
    line = [cell.strip() for cell in table.splitlines()[2].strip("|").split("|")]
    assert line == [
        "[net0](#net-net0-192x256)",
        "192x256",
        "0.602",
        "0.6000",
        "ncnn\N{NO-BREAK SPACE}INT8",
        "0.5900",
        "0.0200,\N{NO-BREAK SPACE}within",
        "1.23\N{NO-BREAK SPACE}MB",
        "3.00x",
    ]


def test_networks_of_the_same_architecture_and_size_are_told_apart_by_their_names() -> None:
    page = render(many(4), "result.json", "report.html")
    assert [line for line in page.splitlines() if line.startswith("## Net ")] == [
        f"## Net (net{place}), 192x256" for place in range(4)
    ]


def test_few_networks_have_no_overview() -> None:
    assert list(overview(many(3))) == []


def test_what_is_left_out_is_on_the_page_with_its_reason() -> None:
    left_out = {"other": {"all": "it has 19 keypoints"}, "net0": {"ncnn": "pnnx | fails"}}
    page = render(many(1, left_out=left_out), "result.json", "report.html")
    cells = [[cell.strip() for cell in line.strip("|").split(" |")] for line in page.splitlines()]
    assert ["other", "all", "it has 19 keypoints"] in cells
    assert ["net0", "those of ncnn", "pnnx \\| fails"] in cells


def test_terminal_shows_the_overview_of_many_networks_and_nothing_else() -> None:
    shown = summary(render(many(4), "result.json", "report.html"))
    assert shown.startswith("## Networks\n\nNetwork  Input")
    assert len(shown.splitlines()) == 2 + 2 + 4


def test_no_picture_is_drawn_of_very_many_networks() -> None:
    drawings = draw(many(MOST_NETWORKS + 1))
    assert [drawing.name for drawing in drawings] == list(NAMES)
    assert all(drawing.empty for drawing in drawings)
