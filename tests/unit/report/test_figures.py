"""The figures of a study: what is drawn is what the result says."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection, QuadMesh
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from tests.unit.result_fixtures import (
    CALIBRATION,
    certificate,
    cost,
    latency,
    metrics,
    network_records,
    result,
    row_records,
    settings,
    small_result,
)

from posequant.base.figures import Drawing, save
from posequant.report.collect import collect
from posequant.report.figures import NAMES, _apart, draw
from posequant.report.result import Result

ROOT = Path(__file__).parents[3]


def drawn(study: Result) -> dict[str, Drawing]:
    return {drawing.name: drawing for drawing in draw(study)}


def panels(drawing: Drawing) -> list[Any]:
    return list(drawing.figure.axes)


def points(panel: Any) -> dict[float, float]:
    """The marks of a panel of rows: the value of each, by its place from the top."""
    return {
        round(float(y), 3): float(x)
        for line in panel.lines
        if line.get_linestyle() == "None"
        for x, y in zip(*line.get_data(), strict=True)
    }


def intervals(panel: Any) -> dict[float, tuple[float, float]]:
    """The same of the intervals."""
    return {
        round(float(segment[0][1]), 3): (float(segment[0][0]), float(segment[1][0]))
        for lines in panel.collections
        if isinstance(lines, LineCollection)
        for segment in lines.get_segments()
    }


def large_result() -> Result:
    """Two networks of seventeen rows, with long names."""
    networks = []
    for name in ("one", "two"):
        ncnn = metrics("ncnn", "ncnn", "fp32", 0.59, model=name)
        rows, costs = [row_records(ncnn)], {"ncnn": cost(ncnn)}
        for number in range(16):
            variant = f"ncnn-int8-equalized-and-rounded-{number}"
            int8 = metrics(variant, "ncnn", "int8", 0.57, model=name)
            rows.append(row_records(int8, certificate(int8, "ncnn")))
            costs[variant] = cost(int8, latency=latency(1 + number) | {"speedup": 1 + number / 50})
        networks.append(network_records(rows, name, costs))
    return collect("mine", settings(networks), networks, CALIBRATION)


@pytest.fixture(scope="module")
def small() -> dict[str, Drawing]:
    return drawn(small_result())


def test_rules_ask_for_every_figure() -> None:
    (said,) = re.findall(r"^FIGURES = \((.*)\)$", (ROOT / "rules/report.smk").read_text(), re.MULTILINE)
    assert re.findall(r"\w+", said) == list(NAMES) == [drawing.name for drawing in draw(small_result())]


def test_every_figure_says_how_to_read_it(small: Mapping[str, Drawing]) -> None:
    for drawing in small.values():
        assert drawing.title
        assert len(drawing.caption) > 60
        assert drawing.caption.endswith(".")
        assert not drawing.empty


def test_differences_are_those_of_the_verdict_with_the_tolerance(small: Mapping[str, Drawing]) -> None:
    oks, ap = panels(small["difference"])
    assert points(oks) == pytest.approx({0: 0.03})
    assert intervals(oks)[0] == pytest.approx((1 - 0.9741, 0.035))
    assert points(ap) == pytest.approx({0: 0.02})
    assert intervals(ap)[0] == pytest.approx((0.0095, 0.031))
    # Zero and the limit.
    for panel, limit in ((oks, 0.03), (ap, 0.02)):
        upright = [float(line.get_xdata()[0]) for line in panel.lines if line.get_linestyle() in ("-", "--")]
        assert upright == [0, limit]
    assert [label.get_text() for label in oks.get_yticklabels()] == ["ncnn INT8"]


def test_tradeoff_is_the_share_kept_by_latency_and_size() -> None:
    fp32, other = metrics("ncnn", "ncnn", "fp32", 0.6), metrics("openvino", "openvino", "fp32", 0.57)
    int8 = metrics("ncnn-int8", "ncnn", "int8", 0.5)
    rows = [row_records(fp32), row_records(other), row_records(int8, certificate(int8, "ncnn"))]
    costs = {
        "ncnn": cost(fp32, latency=latency(5) | {"speedup": 0.8}, size_bytes=4_000_000),
        "openvino": cost(other, latency=latency(4) | {"speedup": 1.0}, size_bytes=4_000_000),
        "ncnn-int8": cost(int8, latency=latency(2) | {"speedup": 2.0}, size_bytes=1_000_000),
    }
    networks = [network_records(rows, costs=costs)]
    drawing = drawn(collect("mine", settings(networks), networks, CALIBRATION))["tradeoff"]
    (panel,) = panels(drawing)
    (marks,) = [marks for marks in panel.collections if isinstance(marks, PathCollection)]
    # FP32 beside the reference of the summary, INT8 beside its own FP32.
    np.testing.assert_allclose(np.asarray(marks.get_offsets()), np.array([[1.25, 100], [1, 95], [0.5, 96.61]]))
    sizes = marks.get_sizes()
    np.testing.assert_allclose(sizes / sizes[0], [1, 1, 0.25])
    # Hollow, hollow, filled.
    faces = np.asarray(marks.get_facecolor())[:, :3]
    assert [bool((face == 1).all()) for face in faces] == [True, True, False]
    bar: Any
    (bar,) = [lines for lines in panel.collections if isinstance(lines, LineCollection)]
    np.testing.assert_allclose(np.array(bar.get_segments()), [[[0.5, 95], [0.5, 99.2]]])
    (front,) = panel.lines
    assert np.asarray(front.get_xdata()).tolist() == [0.5, 1.25]
    assert {text.get_text() for text in panel.texts} == {
        "ncnn FP32, 4.00 MB",
        "OpenVINO FP32, 4.00 MB",
        "ncnn INT8, 1.00 MB",
    }


def test_keypoints_that_moved(small: Mapping[str, Drawing]) -> None:
    shown = panels(small["moved"])
    assert [points(panel)[0] for panel in shown] == pytest.approx([19, 10, 0])
    assert intervals(shown[1])[0] == pytest.approx((8, 12))
    assert not intervals(shown[2])
    assert all(panel.get_xlim()[0] == 0 for panel in shown)


def test_joints_are_a_table_of_shares(small: Mapping[str, Drawing]) -> None:
    (panel,) = panels(small["joints"])
    mesh: Any
    (mesh,) = [mesh for mesh in panel.collections if isinstance(mesh, QuadMesh)]
    np.testing.assert_allclose(np.ravel(mesh.get_array()), [10 + place for place in range(17)])
    assert [text.get_text() for text in panel.texts] == [str(10 + place) for place in range(17)]
    assert panel.get_xticklabels()[9].get_text() == "left wrist"


def test_sizes_that_nobody_has_are_left_out(small: Mapping[str, Drawing]) -> None:
    oks, moved = panels(small["sizes"])
    assert points(oks) == pytest.approx({-0.12: 0.04, 0.12: 0.04})
    assert points(moved) == pytest.approx({-0.12: 12, 0.12: 8})
    assert intervals(moved)[-0.12] == pytest.approx((11, 14))
    (legend,) = small["sizes"].figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["medium", "large"]


def test_memory_and_size_are_bars_from_zero(small: Mapping[str, Drawing]) -> None:
    size, memory = panels(small["memory"])
    for panel, value in ((size, 1.234567), (memory, 12.3)):
        bars = [bar for bar in panel.patches if isinstance(bar, Rectangle)]
        assert [(bar.get_x(), bar.get_width()) for bar in bars] == [(0, value)] * 3
        assert panel.get_xlim()[0] == 0


def test_rows_without_a_certificate_leave_figures_empty(tmp_path: Path) -> None:
    drawings = drawn(result(row_records(metrics("ncnn", "ncnn", "fp32", None))))
    assert {name for name, drawing in drawings.items() if not drawing.empty} == {"memory"}
    for drawing in drawings.values():
        save(drawing.figure, tmp_path / f"{drawing.name}.svg")


def test_poses_that_nobody_has_leave_figures_empty() -> None:
    int8 = metrics("ncnn-int8", "ncnn", "int8", 0.57)
    nobody: dict[str, Any] = {"people": 0, "oks": None, "within": None, "by_joint": [], "by_size": []}
    rows = (
        row_records(metrics("ncnn", "ncnn", "fp32", 0.59)),
        row_records(int8, certificate(int8, "ncnn", without_labels=nobody)),
    )
    drawings = drawn(result(*rows))
    assert {name for name, drawing in drawings.items() if drawing.empty} == {"moved", "joints", "sizes"}
    assert not points(panels(drawings["difference"])[0])


def test_joint_that_nobody_counts_for_is_left_blank() -> None:
    int8 = metrics("ncnn-int8", "ncnn", "int8", 0.57)
    certified = certificate(int8, "ncnn")
    certified["without_labels"]["by_joint"][3] |= {"people": 0, "keypoints": 0, "oks": None, "within": None}
    study = result(row_records(metrics("ncnn", "ncnn", "fp32", 0.59)), row_records(int8, certified))
    (panel,) = panels(drawn(study)["joints"])
    assert len(panel.texts) == 16


def names(panel: Any) -> list[Text]:
    """The labels beside and below a panel, if they are words: numbers may lie outside of what is drawn."""
    labels = [*panel.get_yticklabels(), *panel.get_xticklabels()]
    return [text for text in labels if re.match("[A-Za-z]", text.get_text())]


def test_many_rows_of_two_networks_stay_in_the_picture_and_apart(tmp_path: Path) -> None:
    for name, drawing in drawn(large_result()).items():
        figure = drawing.figure
        save(figure, tmp_path / f"{name}.svg")
        boxes = {
            # Without the line that ties a name to its point.
            text: Text.get_window_extent(text)
            for panel in panels(drawing)
            for text in (*panel.texts, panel.xaxis.label, *names(panel))
            if isinstance(text, Text) and text.get_text() and text.get_visible()
        }
        width, height = figure.canvas.get_width_height()
        for text, box in boxes.items():
            inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
            assert inside, f"{name}: {text.get_text()!r} at {box}"
        for panel in figure.axes:
            texts = [text for text in panel.texts if text in boxes]
            for place, one in enumerate(texts):
                for other in texts[place + 1 :]:
                    assert not boxes[one].padded(-1).overlaps(boxes[other]), f"{name}: {one} and {other}"
        titles = [panel.get_title(loc="left") for panel in figure.axes if panel.get_title(loc="left")]
        assert len(titles) == 2


def test_names_are_moved_apart_and_stay_in_order() -> None:
    assert _apart([0.9, 0.5, 0.1], 0.1) == pytest.approx([0.9, 0.5, 0.1])
    assert _apart([0.5, 0.5, 0.5], 0.1) == pytest.approx([0.5, 0.4, 0.3])
    # At the lower end there is no room below.
    assert _apart([0.05, 0.02, 0.0], 0.1) == pytest.approx([0.2, 0.1, 0.0])
    crowded = _apart([0.5] * 17, 0.5)
    assert crowded == pytest.approx(np.linspace(1, 0, 17))


def test_script_writes_what_it_is_asked_for_and_the_page_shows_it(tmp_path: Path) -> None:
    small_result().write(tmp_path / "result.json")
    command = [
        sys.executable, str(ROOT / "scripts/render_result.py"), "--result", str(tmp_path / "result.json"),
        "--report", str(tmp_path / "report.html"), "--out", str(tmp_path / "result.md"), "--out-figures",
    ]  # fmt: skip
    figures = [tmp_path / "figures" / f"{name}.svg" for name in ("sizes", "moved")]
    subprocess.run([*command, *map(str, figures)], check=True)
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        "moved.png", "moved.svg", "sizes.png", "sizes.svg",
    ]  # fmt: skip
    page = (tmp_path / "result.md").read_text()
    assert re.findall(r"!\[.*\]\((.*)\)", page) == ["figures/moved.svg", "figures/sizes.svg"]
    done = subprocess.run([*command, "nothing.svg"], capture_output=True, text=True, check=False)
    assert done.returncode
    assert "there is no picture nothing" in done.stderr
