"""The table of what a study can name, with the state of each network."""

from pathlib import Path

import pytest

from posequant.base.model_index import networks
from posequant.survey.listing import listing, surveyed
from posequant.survey.survey import Record, markdown

ROOT = Path(__file__).parents[3]
HOURGLASS = "td-hm_hourglass52_8xb32-210e_coco-256x256"
PAGE = markdown(
    [
        Record(
            HOURGLASS,
            codec="MSRAHeatmap",
            input_size=(256, 256),
            sqnr_db={"fp32": 120.0, "bf16": None, "int8": 30.04},
            quantized=["one"],
            work={"int8": 1.0},
            kept_float={"Deconvolution": 3},
            seconds={"describe": 1.0},
        ),
        Record("td-hm_pvt-s_8xb64-210e_coco-256x192", failed="export", reason="aten::a|b"),
    ]
)


def line_of(name: str) -> list[str]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in listing(networks(), PAGE).splitlines()]
    (found,) = [line for line in lines if line[0] == name]
    return found[1:]


def test_state_is_what_the_survey_says() -> None:
    assert surveyed(PAGE) == {HOURGLASS: "INT8 at 30.0 dB", "td-hm_pvt-s_8xb64-210e_coco-256x192": "stops at: export"}


def test_survey_in_the_repository_is_read() -> None:
    states = surveyed((ROOT / "docs/models.md").read_text())
    assert states[HOURGLASS].startswith("INT8 at ")
    assert states["td-reg_res50_8xb64-210e_coco-256x192"] == "stops at: describe"
    assert "Deconvolution" not in states


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        (HOURGLASS, ["COCO", "256x256", "17", "AP 0.726", "INT8 at 30.0 dB"]),
        ("td-hm_pvt-s_8xb64-210e_coco-256x192", ["COCO", "192x256", "17", "AP 0.714", "stops at: export"]),
        ("rtmpose-m_8xb64-210e_ap10k-256x256", ["AP-10K", "256x256", "17", "AP 0.722", "not tried"]),
        ("rtmo-m_16xb16-700e_crowdpose-640x640", ["CrowdPose", "640x640", "14", "AP 0.711", "not top-down"]),
        ("swin_b_p4_w7_fpn_coco_256x192", ["COCO", "-", "-", "AP 0.741", "not by name: no config"]),
        (
            "td-hm_res101_8xb32-210e_coco-384x288",
            ["COCO", "288x384", "17", "AP 0.749", "not by name: no checkpoint"],
        ),
    ],
)
def test_line_of_a_network(name: str, cells: list[str]) -> None:
    assert line_of(name) == cells


def test_every_network_has_a_line() -> None:
    assert len(listing(networks(), PAGE).splitlines()) == 2 + len(networks())


def test_only_lines_with_all_words_are_shown() -> None:
    found = listing(networks(), PAGE, ["hourglass", "COCO", "256x256", "17"]).splitlines()[2:]
    assert [line.split()[1] for line in found] == [HOURGLASS]
    assert listing(networks(), PAGE, ["nothing", "like"]) == "No network has all of: nothing, like."
