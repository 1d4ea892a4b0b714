from typing import Any

import pytest
import yaml
from tests.unit.result_fixtures import (
    CALIBRATION,
    GROUND_TRUTH,
    certificate,
    cost,
    metrics,
    network_records,
    result,
    row_records,
    settings,
    small_result,
)

from posequant.report.collect import collect
from posequant.report.page import Picture, render
from posequant.report.result import Result


def page_of(study: Result) -> str:
    return render(study, "result.json", "report.html").replace("\N{NO-BREAK SPACE}", " ")


def cells(page: str, first: str) -> list[list[str]]:
    lines = [line for line in page.splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [line for line in table if line[0] == first]


def summary(page: str) -> str:
    return page.partition("# Backends")[0]


def test_summary_states_difference_to_the_reference() -> None:
    page = page_of(small_result())
    assert "## Net, 192x256" in page
    assert cells(page, "ncnn INT8")[0] == ["ncnn INT8", "0.5700", "-0.0300", "1.23 MB", "12.35 ms", "2.50x"]
    assert cells(page, "PyTorch FP32")[0][1:3] == ["0.6000", "reference"]


def test_page_opens_with_a_verdict_for_every_row_in_reduced_precision() -> None:
    page = page_of(small_result())
    verdicts = [line for line in page.splitlines() if line.startswith("- **")]
    assert len(verdicts) == 1
    assert verdicts[0].startswith("- **ncnn INT8: undecided on 10 images.** It keeps 96.6% of FP32's AP")
    assert page.index(verdicts[0]) < page.index("| Backend")
    assert "at most 0.03, by the upper end of its interval; the loss of AP is at most 0.02" in page


def test_costs_of_every_row() -> None:
    page = summary(page_of(small_result()))
    assert cells(page, "ncnn FP32")[-1] == ["ncnn FP32", "18.52 ms", "-", "150/s", "12 MB", "30 ms"]
    assert "a CPU (AVX2), in one run" in page
    assert "on 2 threads" in page


def on_vulkan(predicted: str, timed: str, kind: str) -> Result:
    """A study with a row on Vulkan, and the same on the CPU."""
    rows = (
        metrics("ncnn", "ncnn", "fp32", 0.59),
        metrics("ncnn-vulkan", "ncnn-vulkan", "fp32", 0.59, device={"name": predicted, "kind": kind, "driver": 1}),
    )
    costs = {"ncnn-vulkan": cost(rows[1], device={"name": timed, "kind": kind, "driver": 1, "on_cpu": ["Softmax"]})}
    networks = [network_records([row_records(row) for row in rows], costs=costs)]
    return collect("mine", settings(networks), networks, CALIBRATION)


def test_times_of_a_driver_that_is_no_gpu_are_marked_wherever_they_stand() -> None:
    page = page_of(on_vulkan("llvmpipe", "llvmpipe", "CPU"))
    assert len(cells(page, "ncnn Vulkan FP32 (no GPU)")) == 3  # summary, costs, files
    assert not cells(page, "ncnn Vulkan FP32")
    said = (
        "on llvmpipe, a driver that computes on the processor and is no GPU, layers without a Vulkan kernel on the CPU"
    )
    assert f"ncnn Vulkan FP32 (no GPU): {said} (Softmax), one crop at a time." in page
    assert "their times are not those of a GPU" in page
    assert "another device" not in page


def test_a_gpu_is_named() -> None:
    page = page_of(on_vulkan("a GPU", "a GPU", "discrete GPU"))
    assert "ncnn Vulkan FP32: on a GPU, discrete GPU, layers" in page
    assert "no GPU" not in page
    moved = page_of(on_vulkan("an old GPU", "a GPU", "discrete GPU"))
    assert "The people of ncnn Vulkan FP32 were predicted on another device, an old GPU." in moved


def test_tables_do_not_wrap() -> None:
    page = render(small_result(), "result.json", "report.html")
    (line,) = [line for line in page.splitlines() if "0.9700" in line]
    assert "0.9700\N{NO-BREAK SPACE}[0.9650,\N{NO-BREAK SPACE}0.9741]" in line


def test_every_variant_has_the_table_with_a_link_to_its_log() -> None:
    section = page_of(small_result()).partition("## ncnn INT8\n")[2].partition("\n## ")[0]
    assert cells(section, "Arch") == [["Arch", "Input Size", "AP", "AP50", "AP75", "AR", "AR50", "log"]]
    assert cells(section, "Net") == [
        ["Net", "192x256", "0.5700", "0.9000", "0.8000", "0.7500", "0.9500", "[log](net/ncnn-int8/evaluate.log)"]
    ]


def test_difference_that_rounds_to_zero_has_no_minus() -> None:
    rows = (metrics("pytorch", "pytorch", "fp32", 0.6), metrics("ncnn", "ncnn", "fp32", 0.59999))
    page = page_of(result(*map(row_records, rows)))
    assert cells(page, "ncnn FP32")[0][2] == "+0.0000"


def test_figure_that_nobody_knows_is_a_dash() -> None:
    page = page_of(result(row_records(metrics("ncnn", "ncnn", "fp32", None))))
    assert cells(page, "ncnn FP32")[0][1:3] == ["-", "reference"]


def test_calibration_counts_people_and_images() -> None:
    section = page_of(small_result()).partition("# Calibration set")[2]
    assert cells(section, "People") == [["People", "3"]]
    assert cells(section, "Shared with the evaluation images") == [["Shared with the evaluation images", "0"]]


def test_picture_has_its_caption() -> None:
    page = render(small_result(), "result.json", "report.html", [Picture("figures/x.svg", "The x", "Read it so.")])
    assert "## The x\n\n![The x](figures/x.svg)\n\nRead it so." in page


def test_versions_of_all_rows_are_listed_once() -> None:
    assert "ncnn 1.0, numpy 2.0, pytorch 1.0." in page_of(small_result())


def test_says_how_to_make_it_again() -> None:
    page = page_of(small_result())
    assert "snakemake -c4 results/mine/result.md" in page
    said = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])
    assert said == small_result().settings


FLIPPED = {"boxes": "ground-truth", "flip_test": True}


def published(average_precision: float, protocol: dict[str, Any], tolerance: float = 0.002) -> dict[str, Any]:
    return {
        "variants": ["pytorch", "openvino"],
        "protocol": protocol,
        "statistics": {"AP": average_precision, "AR": 0.75},
        "tolerance": tolerance,
        "source": "the paper",
    }


def page_with(*figures: dict[str, Any], **changed: Any) -> str:
    rows = metrics("ncnn-int8", "ncnn", "int8", 0.57), metrics("pytorch", "pytorch", "fp32", 0.6, **changed)
    return page_of(result(*map(row_records, rows), published=list(figures)))


def published_section(page: str) -> str:
    return page.partition("# Published figures\n")[2].partition("\n# ")[0]


def test_published_figures_stand_beside_the_measured_ones() -> None:
    page = page_with(published(0.5985, GROUND_TRUTH))
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
def test_row_outside_the_tolerance_is_flagged(figure: float, flagged: bool) -> None:
    page = page_with(published(figure, GROUND_TRUTH))
    assert ("**outside 0.002: AP**" in published_section(page)) == flagged
    assert ("**Not as published: PyTorch FP32.**" in summary(page)) == flagged


def test_figure_that_was_not_measured_is_flagged() -> None:
    statistics = {"AP": 0.6, "AP50": 0.9, "AP75": 0.8, "AR": 0.75, "AR50": 0.95, "APL": None}  # nobody is large
    figures = published(0.6, GROUND_TRUTH) | {"statistics": {"AP": 0.6, "APL": 0.7}}
    section = published_section(page_with(figures, statistics=statistics))
    assert cells(section, "PyTorch FP32")[0][2:4] == ["0.6000", "-"]
    assert "**outside 0.002: APL**" in section


def test_figures_under_another_protocol_are_listed_and_not_compared() -> None:
    page = page_with(published(0.9, FLIPPED))
    section = published_section(page)
    assert "under another protocol; not compared" in section
    assert cells(section, "pytorch, openvino") == [
        ["pytorch, openvino", "ground-truth", "yes", "AP 0.9000, AR 0.7500", "the paper"]
    ]
    assert "difference" not in section
    assert "Not as published" not in page


def test_subset_is_stated_and_not_compared_with_figures_of_all() -> None:
    protocol = GROUND_TRUTH | {"people": 20, "seed": 7}
    rows = [metrics("pytorch", "pytorch", "fp32", 0.6, protocol=protocol)]
    page = page_of(result(*map(row_records, rows), published=[published(0.9, GROUND_TRUTH)]))
    assert "without flip test. A subset: images chosen at random, seed 7, until they held 20 people." in page
    section = published_section(page)
    assert cells(section, "pytorch, openvino")[0][1:4] == ["ground-truth", "no", "all"]
    assert "difference" not in section


def test_page_without_published_figures_has_no_section_of_them() -> None:
    assert "Published" not in page_of(small_result())


def certified_page(**changed: Any) -> str:
    int8 = metrics("ncnn-int8", "ncnn", "int8", 0.57)
    of = certificate(int8, "ncnn", **changed)
    return page_of(result(row_records(metrics("ncnn", "ncnn", "fp32", 0.59)), row_records(int8, of)))


def test_certified_row_states_its_interval_and_links_the_certificate() -> None:
    page = certified_page()
    link = "[certificate](net/ncnn-int8/certificate.md)"
    against = ["ncnn INT8", "-0.0200 [-0.0310, -0.0095]", "96.6% [95.0%, 99.2%]", link]
    near = ["ncnn INT8", "0.9700 [0.9650, 0.9741]", "21.3 dB"]
    within = ["ncnn INT8", "81.0% [80.0%, 82.5%]", "90.0% [88.0%, 92.0%]", "100.0%"]
    assert cells(summary(page), "ncnn INT8")[1:4] == [against, near, within]
    section = page.partition("# Certificates")[2].partition("\n# ")[0]
    assert cells(section, "[ncnn INT8](net/ncnn-int8/certificate.md)") == [
        ["[ncnn INT8](net/ncnn-int8/certificate.md)", "undecided", "not met", "98.6%", "no layer"]
    ]


@pytest.mark.parametrize(("precision", "said"), [("int8", "-"), ("bf16", "no layer")])
def test_overflow_is_unknown_of_integers_and_none_of_floats(precision: str, said: str) -> None:
    section = certified_page(overflow=None, precision=precision).partition("# Certificates")[2]
    assert cells(section, "[ncnn INT8](net/ncnn-int8/certificate.md)")[0][-1] == said


def test_poses_that_nobody_has_are_a_dash() -> None:
    page = certified_page(without_labels={"oks": None, "within": None})
    assert ["ncnn INT8", "-", "21.3 dB"] in cells(summary(page), "ncnn INT8")
    assert "| Within" not in page
