import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import expect
from tests.browser import needs_browser, opened
from tests.unit.result_fixtures import (
    CALIBRATION,
    certificate,
    metrics,
    network_records,
    row_records,
    settings,
    small_result,
)

from posequant.base.errors import InputError
from posequant.report.collect import Record, collect
from posequant.report.html import Page, pages_of, render_report
from posequant.report.html.figures import attribution_figures, network_figures
from posequant.report.result import Links, Result

LAYERS = [
    {"layer": name, "kernel": "3x3", "stored": stored, "bits": bits, "macs": 10, "macs_share": share}
    | {"local_sqnr_db": sqnr, "sqnr_db": sqnr, "noise": 0.1, "oks_loss": 0.001, "noise_share": share}
    for name, stored, bits, share, sqnr in (
        ("conv_0", "int8", 8, 0.7, 30.0),
        ("conv_1", "int8", 6, 0.2, 20.5),
        ("fc", "float16", None, 0.1, None),
    )
]
STEPS = [
    {"step": step, "what": "", "sqnr_db": sqnr, "noise": noise, "oks_loss": 0.0}
    for step, sqnr, noise in (("float", None, 0.0), ("weights", 30.0, 0.001), ("INT8 network", 27.0, 0.002))
]


def attribution_of(row: dict[str, Any]) -> dict[str, Any]:
    return {"crops": 4, "waterfall": STEPS, "layers": LAYERS, "sha256": {"int8": row["sha256"]["artifact"]}}


def full_result(folder: Path) -> Result:
    """Two rows in FP32, two in INT8, with all pages in `folder`, one of them attributed to layers."""
    rows = [row_records(metrics("ncnn", "ncnn", "fp32", 0.59)), row_records(metrics("pytorch", "pytorch", "fp32", 0.6))]
    for variant, average_precision in (("ncnn-int8", 0.57), ("ncnn-int8-tuned", 0.585)):
        of = metrics(variant, "ncnn", "int8", average_precision)
        rows.append(row_records(of, certificate(of, "ncnn")))
        page = folder / "net" / variant / "certificate.md"
        page.parent.mkdir(parents=True)
        page.write_text(
            f"# Certificate of {variant}\n\n![x](x.svg)\n\nSee [the layers](attribution.md), [log](a.log).\n"
        )
        (page.parent / "x.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    of = rows[2].metrics.content
    links = replace_links(rows[2].links, attribution="net/ncnn-int8/attribution.md")
    rows[2] = replace(rows[2], links=links, attribution=Record(Path("attribution.json"), attribution_of(of)))
    (folder / "net/ncnn-int8/attribution.md").write_text("# Layers\n\nSee [the certificate](certificate.md).\n")
    (folder / "net/onnx").mkdir()
    (folder / "net/onnx/operators.md").write_text("# Operators of the network\n")
    networks = [network_records(rows)]
    return collect("mine", settings(networks), networks, CALIBRATION)


def replace_links(links: Links, **changed: str) -> Links:
    return links.model_copy(update=changed)


def pictures(folder: Path, variant: str = "ncnn-int8") -> Path:
    """The list of the pictures of a row, with two people."""
    place = folder / "net" / variant
    (place / "pictures").mkdir(parents=True, exist_ok=True)
    for name in ("photograph.jpg", "map.png"):
        cv2.imwrite(str(place / "pictures" / name), np.full((40, 30, 3), 128, np.uint8))
    heatmaps: dict[str, Any] = dict.fromkeys(("reference", "candidate", "difference"), "pictures/map.png")
    heatmaps["largest_difference"] = 0.125
    people = [
        {
            "choice": choice,
            "rank": 1,
            "image": {"id": 7, "file_name": "7.jpg"},
            "annotation_id": annotation,
            "box": [1.0, 2.0, 30.0, 40.0],
            "photograph": "pictures/photograph.jpg",
            "size": [30, 40],
            "reference": [[10.0, 10.0, 0.9], [20.0, 30.0, 0.8], [5.0, 5.0, 0.1]],
            "candidate": [[11.0, 10.0, 0.9], [20.0, 33.0, 0.8], [5.0, 5.0, 0.1]],
            "annotation": [[10.0, 11.0, 2], [0.0, 0.0, 0], [5.0, 5.0, 1]] if annotation else None,
            "scale": 1.0,
            "loss": 0.25,
            "moved_most": {"joint": "left knee", "pixels": 3.0},
            "heatmaps": heatmaps if annotation else None,
        }
        for choice, annotation in (("worst", 12), ("random", None))
    ]
    content = {
        "model": "net",
        "variant": variant,
        "skeleton": [[0, 1], [1, 2]],
        "least_score": 0.2,
        "people": people,
    }
    (place / "pictures.json").write_text(json.dumps(content))
    return place / "pictures.json"


def report_of(folder: Path, *, with_pictures: bool = True) -> str:
    result = full_result(folder)
    pages = {network.name: pages_of(network, folder) for network in result.networks}
    device = folder / "device.md"
    cells = " | ".join(["a cell that is wide"] * 8)
    line = "|".join(["---"] * 8)
    device.write_text(f"# Device pi5, demo\n\n## net, 192x256\n\n**Ship ncnn-int8**: 4 ms.\n\n| {cells} |\n|{line}|\n")
    return render_report(result, "result.json", pages, [pictures(folder)] if with_pictures else [], [device])


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    (folder / "report.html").write_text(report_of(folder))
    return folder / "report.html"


@needs_browser
def test_table_is_sorted_by_a_press_on_a_column(report: Path) -> None:
    with opened(report) as page:
        table = page.locator("#net-rows")

        def order() -> list[str]:
            return table.locator("tbody th").all_inner_texts()

        assert order() == ["ncnn FP32", "PyTorch FP32", "ncnn INT8", "ncnn INT8 tuned"]
        table.get_by_role("button", name="AP", exact=True).click()
        assert order() == ["ncnn INT8", "ncnn INT8 tuned", "ncnn FP32", "PyTorch FP32"]
        assert table.locator("th[aria-sort=ascending]").inner_text() == "AP"
        table.get_by_role("button", name="AP", exact=True).press("Enter")
        assert order() == ["PyTorch FP32", "ncnn FP32", "ncnn INT8 tuned", "ncnn INT8"]
        # What a row does not have comes last, whichever way.
        for _ in range(2):
            table.get_by_role("button", name="OKS loss").click()
            assert set(order()[2:]) == {"PyTorch FP32", "ncnn FP32"}


@needs_browser
def test_tables_are_filtered_by_words(report: Path) -> None:
    with opened(report) as page:
        page.get_by_label("Filter").fill("ncnn int8")
        assert page.locator("#net-rows tbody tr:visible").count() == 2
        assert page.locator("[data-count=net-rows]").inner_text() == "2 of 4"
        page.get_by_label("Search").fill("float")
        assert page.locator("#net-ncnn-int8-layers-table tbody tr:visible th").all_inner_texts() == ["fc"]


@needs_browser
def test_figures_are_drawn_and_tell_numbers_under_the_pointer(report: Path) -> None:
    with opened(report) as page:
        figure = page.locator("#net-oks")
        figure.scroll_into_view_if_needed()
        figure.locator(".point").first.wait_for()
        figure.locator(".point").first.hover(force=True)
        assert "loss 0.0300 [0.0259, 0.0350]" in (figure.locator(".hovertext").text_content() or "")
        for place in page.locator(".plot").all():
            place.scroll_into_view_if_needed()
            place.locator(".main-svg").first.wait_for()


@needs_browser
def test_slider_goes_from_fp32_to_the_row(report: Path) -> None:
    with opened(report) as page:
        person = page.locator(".person").first
        slider = person.get_by_role("slider")

        def widths() -> tuple[float, float]:
            clips = person.locator("clipPath rect")
            return float(clips.nth(0).get_attribute("width") or 0), float(clips.nth(1).get_attribute("x") or 0)

        assert widths() == (15, 15)
        slider.press("End")
        assert widths() == (30, 30)
        slider.press("Home")
        slider.press("ArrowRight")
        assert widths() == (0.3, 0.3)


@needs_browser
def test_poses_have_what_is_known_of_a_person(report: Path) -> None:
    with opened(report) as page:
        first, second = page.locator(".person").all()
        assert first.locator(".reference circle").count() == 2  # one joint is below the least score
        assert first.locator(".annotation").count() == 0
        page.get_by_label("the annotation").check()
        assert first.locator(".annotation circle").count() == 2
        assert second.locator(".annotation").count() == 0
        assert "Worst: OKS loss 0.2500; most moved: left knee, 3.0 px" in first.inner_text()
        assert "Image 7.jpg (id 7), annotation 12, box 1, 2, 30, 40" in first.inner_text()
        assert first.locator(".heatmaps img").count() == 3
        assert "no annotation" in second.inner_text()
        assert second.locator(".heatmaps").count() == 0


@needs_browser
def test_certificate_opens_over_the_report_and_escape_closes_it(report: Path) -> None:
    with opened(report) as page:
        link = page.locator(".card").first.get_by_role("link", name="Certificate")
        link.click()
        dialog = page.locator("dialog[open]")
        assert "Certificate of ncnn-int8" in dialog.inner_text()
        dialog.get_by_role("link", name="the layers").click()
        page.get_by_role("heading", name="Layers", exact=True).wait_for()
        assert page.locator("dialog[open]").count() == 1
        page.keyboard.press("Escape")
        assert page.locator("dialog[open]").count() == 0
        # The browser tells of the address a little later.
        expect(page).to_have_url(report.as_uri())


@needs_browser
def test_address_of_a_page_opens_it(report: Path) -> None:
    with opened(report) as page:
        page.goto(f"{report.as_uri()}#page-net-ncnn-int8-tuned-certificate")
        assert "Certificate of ncnn-int8-tuned" in page.locator("dialog[open]").inner_text()


@needs_browser
def test_pages_are_read_without_javascript(report: Path) -> None:
    with opened(report, java_script_enabled=False) as page:
        assert page.locator("dialog", has_text="Certificate of ncnn-int8-tuned").is_visible()
        assert "Without JavaScript" in page.locator("header").inner_text()


@needs_browser
def test_theme_is_that_of_the_system_until_one_is_chosen(report: Path) -> None:
    with opened(report, color_scheme="dark") as page:
        assert page.locator("html").get_attribute("data-theme") == "dark"
        page.locator("#theme-button").click()
        assert page.locator("html").get_attribute("data-theme") == "light"
        page.reload()
        assert page.locator("html").get_attribute("data-theme") == "light"


@needs_browser
def test_nothing_is_wider_than_a_phone(report: Path) -> None:
    with opened(report, width=390) as page:
        for place in page.locator(".plot").all():
            place.scroll_into_view_if_needed()
            place.locator(".main-svg").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        for dialog in page.locator("dialog").all():
            page.goto(f"{report.as_uri()}#{dialog.get_attribute('id')}")
            assert dialog.evaluate("element => element.scrollWidth <= element.clientWidth")


def test_device_has_a_section_of_its_own(report: Path) -> None:
    html = report.read_text()
    (identifier,) = re.findall(r'<a href="#([^"]+)">Device pi5</a>', html)
    _, section = html.split(f'<section id="{identifier}" class="device">')
    section = section.partition("</section>")[0]
    assert "<h2>Device pi5, demo</h2>" in section
    assert "<h3>net, 192x256</h3>" in section
    assert "<strong>Ship ncnn-int8</strong>" in section


def test_report_needs_no_other_file(report: Path) -> None:
    html = report.read_text()
    head = html.partition("<script>")[0]
    assert re.findall(r'(?:src|href)="(?!data:|#)([^"]*)"', head) == ["result.json"]
    assert "default-src 'none'" in head
    assert len(html) < 8_000_000


def test_names_cannot_end_the_data_or_the_page() -> None:
    result = small_result()
    hostile = "</script><script>alert(1)</script>"
    row = result.networks[0].rows[2].model_copy(update={"title": hostile})
    network = result.networks[0].model_copy(update={"rows": [*result.networks[0].rows[:2], row]})
    html = render_report(result.model_copy(update={"networks": [network]}), "result.json", {}, [])
    assert "alert(1)</script>" not in html


@pytest.mark.parametrize("names", [("a_b", "a.b"), ("main", "theme"), ("ground", "page")])
def test_networks_of_any_name_have_ids_of_their_own(names: tuple[str, str]) -> None:
    (network,) = small_result().networks
    networks = [network.model_copy(update={"name": name}) for name in names]
    html = render_report(small_result().model_copy(update={"networks": networks}), "result.json", {}, [])
    ids = re.findall(r'(?<=[ <]id=")[^"]+', html.partition("<script>")[0])
    assert len(ids) == len(set(ids))


def test_missing_page_and_picture_are_named(tmp_path: Path) -> None:
    page = Page("net/x.md", "X", tmp_path / "x.md")
    with pytest.raises(InputError, match=r"x\.md: there is no such file"):
        render_report(small_result(), "result.json", {"net": [page]}, [])
    listed = pictures(tmp_path)
    (tmp_path / "net/ncnn-int8/pictures/map.png").unlink()
    with pytest.raises(InputError, match=r"map\.png: there is no such picture"):
        render_report(small_result(), "result.json", {}, [listed])


def test_every_figure_has_a_caption_and_what_the_result_says(tmp_path: Path) -> None:
    (network,) = full_result(tmp_path).networks
    figures = {figure.id: figure for figure in network_figures(network, "n")}
    assert list(figures) == ["n-oks", "n-ap", "n-tradeoff", "n-moved", "n-joints", "n-memory"]
    assert all(figure.caption.endswith(".") for figure in figures.values())
    (losses,) = figures["n-oks"].data
    assert losses["x"] == [pytest.approx(0.03), pytest.approx(0.03)]
    assert losses["error_x"]["array"] == [pytest.approx(0.005)] * 2
    assert losses["error_x"]["arrayminus"] == [pytest.approx(0.0041)] * 2
    assert figures["n-oks"].layout["shapes"][0]["x0"] == 0.03
    front, points = figures["n-tradeoff"].data
    assert points["y"] == [pytest.approx(share) for share in (98.3333, 100, 96.61, 96.61)]
    assert points["error_y"]["arrayminus"][2] == pytest.approx(1.61)
    assert front["y"] == [pytest.approx(100)]  # all take the same time
    moved = {trace["name"]: trace["x"] for trace in figures["n-moved"].data}
    assert moved["more than 2 px"] == [pytest.approx(10)] * 2
    (joints,) = figures["n-joints"].data
    assert (len(joints["z"]), len(joints["z"][0])) == (17, 2)
    assert joints["z"][0][0] == pytest.approx(0.01)


def test_attribution_is_drawn_as_shares_and_steps(tmp_path: Path) -> None:
    row = full_result(tmp_path).networks[0].row("ncnn-int8")
    assert row is not None
    layers, steps = attribution_figures(row, "r")
    assert layers.data[0]["y"] == [pytest.approx(share) for share in (70, 20, 10)]
    assert steps.data[0]["y"] == [pytest.approx(share) for share in (0.1, 0.1, 0.2)]


def test_rows_without_certificates_have_a_report() -> None:
    result = small_result()
    network = result.networks[0].model_copy(update={"rows": result.networks[0].rows[:2]})
    html = render_report(result.model_copy(update={"networks": [network]}), "result.json", {}, [])
    assert "All rows" in html
    assert 'class="card' not in html
