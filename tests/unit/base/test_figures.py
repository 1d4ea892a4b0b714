"""How pictures are written."""

from pathlib import Path
from xml.etree import ElementTree

import cv2
import pytest
from matplotlib.colors import to_rgb

from posequant.base import figures
from posequant.base.figures import new_figure, save, style


def written(folder: Path) -> list[bytes]:
    with style():
        figure = new_figure(2)
        figure.subplots().plot([1, 2], [3, 4])
    save(figure, folder / "one.svg")
    return [(folder / name).read_bytes() for name in ("one.svg", "one.png")]


def test_equal_figures_are_equal_bytes_and_name_no_time_and_no_software(tmp_path: Path) -> None:
    svg, png = written(tmp_path / "a")
    assert written(tmp_path / "b") == [svg, png]
    assert b"<dc:date>" not in svg
    assert b"Software" not in png
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["one.png", "one.svg"]


def test_pictures_have_a_white_ground_of_their_own(tmp_path: Path) -> None:
    svg, _ = written(tmp_path)
    assert b"fill: #ffffff" in svg
    ElementTree.fromstring(svg)
    picture = cv2.imread(str(tmp_path / "one.png"), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    assert picture[0, 0].tolist() == [255, 255, 255, 255]


def test_no_text_is_small() -> None:
    with style():
        panel = new_figure(2).subplots()
        panel.set(xlabel="x", ylabel="y", title="t")
        texts = [panel.title, panel.xaxis.label, *panel.get_xticklabels(), *panel.get_yticklabels()]
        assert min(float(text.get_fontsize()) for text in texts) >= 9


@pytest.mark.parametrize("precision", figures.PRECISION_COLOURS)
def test_colours_of_precisions_are_told_apart(precision: str) -> None:
    colours = {name: to_rgb(colour) for name, colour in figures.PRECISION_COLOURS.items()}
    others = [colour for name, colour in colours.items() if name != precision]
    assert all(sum(abs(a - b) for a, b in zip(colours[precision], other, strict=True)) > 0.5 for other in others)
