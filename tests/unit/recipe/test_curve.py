"""The curve of calibration people: what is compared, and what it looks like."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from posequant.base.errors import InputError
from posequant.recipe.curve import Point, Split, measure_curve, parse_recipe, threshold_changes, write_curve
from posequant.workflow.settings.recipe import Recipe, Steps

POINTS = [
    Point(seed, people, 0.5 + people / 1000, -0.01, 0.97, 0.02 * (128 - people) / 128, 0.1)
    for seed in (0, 1)
    for people in (32, 128)
]


def test_threshold_changes_by_hand() -> None:
    # Thresholds are 1 / scale: 1/2 beside 1/4, 1/5 beside 1/4, 1/3 beside 1/3.
    scales = {"a": np.float32(2), "b": np.float32(5), "c": np.float32(3), "of one only": np.float32(1)}
    most = {"a": np.float32(4), "b": np.float32(4), "c": np.float32(3)}
    assert threshold_changes(scales, most) == pytest.approx((0.2, 1.0))


def test_recipe_is_a_method_or_a_list_of_steps() -> None:
    assert parse_recipe("kl") == "kl"
    steps: Steps = [{"weights": {"bits": 8}}, {"activations": {"method": "kl"}}]
    assert parse_recipe(json.dumps(steps)) == Recipe.of(steps)
    with pytest.raises(InputError, match="is not a list"):
        parse_recipe('{"weights": {}}')
    with pytest.raises(InputError, match=r"not valid JSON .*Expecting value"):
        parse_recipe("kll")


def test_what_is_unknown_is_left_open(tmp_path: Path) -> None:
    csv, figure, page = (tmp_path / name for name in ("curve.csv", "curve.svg", "curve.md"))
    unknown = Point(0, 64, None, None, None, 0.02, 0.1)
    write_curve([*POINTS, unknown], "net", csv, figure, page)
    assert csv.read_text().splitlines()[-1] == "0,64,,,,0.02,0.1"
    (line,) = [line for line in page.read_text().splitlines() if line.startswith("| 64")]
    assert [cell.strip() for cell in line.split("|")[3:6]] == ["-", "-", "-"]
    ElementTree.fromstring(figure.read_bytes())
    write_curve([unknown], "net", csv, figure, page)
    assert csv.read_text().splitlines()[-1] == "0,64,,,,0.02,0.1"


def test_curve_is_a_table_a_page_and_a_picture(tmp_path: Path) -> None:
    csv, figure, page = (tmp_path / name for name in ("curve.csv", "curve.svg", "curve.md"))
    write_curve(POINTS, "net, ncnn-int8", csv, figure, page)
    lines = csv.read_text().splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("seed,people,score")
    text = page.read_text()
    assert "(curve.svg)" in text
    assert [line.split()[1] for line in text.splitlines() if line.startswith("| ")][1:] == ["32", "32", "128", "128"]
    drawn = figure.read_bytes()
    ElementTree.fromstring(drawn)
    write_curve(POINTS, "net, ncnn-int8", csv, figure, page)
    assert figure.read_bytes() == drawn


def test_recipe_that_distills_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    recipe = Recipe.of([{"weights": {}}, {"activations": {"method": "kl"}}, {"distill": {}}])
    nothing = tmp_path / "nothing"
    with pytest.raises(InputError, match=r"has the step 'distill'.* Make the curve of a row whose recipe"):
        measure_curve(
            sizes=[8],
            seeds=[0],
            recipe=recipe,
            model=nothing,
            param=nothing,
            bin_=nothing,
            train=Split(nothing, nothing),
            val=Split(nothing, nothing),
            reference=nothing,
            threads=1,
        )
