"""What networks and jobs take, worked by hand; into how many shards that cuts a study."""

import json
import os
from pathlib import Path

import pytest

from posequant.workflow.costs import (
    RATES,
    Network,
    Work,
    bytes_of,
    download_bytes,
    evaluated,
    input_pixels,
    measured_rows,
    network_of,
    number_of_shards,
    people_in,
    row_seconds,
    seconds_of,
    shards_in,
)
from posequant.workflow.settings.precisions import PRECISIONS


@pytest.mark.parametrize(
    ("parameters", "pixels", "gmac"),
    [
        pytest.param(94.85e6, 256 * 256, 28.6, id="Hourglass52"),
        pytest.param(28.5e6, 192 * 256, 7.7, id="HRNet-w32"),
        pytest.param(34.0e6, 192 * 256, 5.4, id="SimpleBaseline, ResNet-50"),
        pytest.param(9.6e6, 192 * 256, 1.6, id="SimpleBaseline, MobileNetV2"),
        pytest.param(13.6e6, 192 * 256, 1.9, id="RTMPose-m"),
        pytest.param(86.0e6, 192 * 256, 17.1, id="ViTPose-B"),
    ],
)
def test_arithmetic_of_a_network_is_told_from_the_size_of_its_weights(
    parameters: float, pixels: int, gmac: float
) -> None:
    network = network_of(weights=round(4 * parameters), pixels=pixels, gmac=None)
    assert network is not None
    assert network.gmac == pytest.approx(gmac, rel=0.45)


def test_what_the_user_says_of_the_arithmetic_comes_first() -> None:
    assert network_of(weights=400, pixels=100, gmac=3.0) == Network(3.0, 400, 100)
    # 4 GMAC of 250,000 pixels at .0040 are 4 million parameters, of four bytes each.
    from_gmac = network_of(weights=None, pixels=250_000, gmac=4.0)
    assert from_gmac is not None
    assert from_gmac.bytes == pytest.approx(16e6)


def test_nothing_is_told_of_a_network_without_weights_or_size() -> None:
    assert network_of(weights=None, pixels=100, gmac=None) is None
    assert network_of(weights=100, pixels=None, gmac=None) is None


def test_every_row_has_a_speed() -> None:
    assert set(RATES) == {(backend, precision) for backend, all_of in PRECISIONS.items() for precision in all_of}


def test_flip_test_doubles_the_time_of_a_person() -> None:
    variants = {"row": {"backend": "ncnn", "precision": "fp32"}}
    studies = {name: {"protocol": {"flip_test": name == "flipped"}} for name in ("plain", "flipped")}
    config = {"variants": variants, "studies": studies}
    plain, flipped = (row_seconds("row", Network(2 * RATES["ncnn", "fp32"]), config, study) for study in studies)
    assert [plain, flipped] == pytest.approx([2, 4])


def test_size_of_a_crop_is_read_from_settings_name_or_text(tmp_path: Path) -> None:
    assert input_pixels({"input_size": [192, 256]}, None) == 192 * 256
    assert input_pixels({}, Path("td-hm_hourglass52_8xb32-210e_coco-384x384.py")) == 384 * 384
    config = tmp_path / "config.py"
    config.write_text("codec = dict(type='MSRAHeatmap', input_size=(128, 96), heatmap_size=(32, 24))\n")
    assert input_pixels({}, config) == 128 * 96
    config.write_text("size = 128\n")
    assert input_pixels({}, config) is None


def test_people_are_counted_as_they_are_evaluated(tmp_path: Path) -> None:
    annotations, detections = tmp_path / "annotations.json", tmp_path / "detections.json"
    assert people_in(annotations, None) is None
    annotations.write_text(json.dumps({"annotations": [{"num_keypoints": n, "bbox": [0]} for n in (0, 3, 17, 0, 10)]}))
    assert people_in(annotations, None) == 3
    detections.write_text(json.dumps([{"bbox": [0, 0, 1, 1], "score": 0.5}] * 7))
    assert people_in(annotations, detections) == 7


def test_known_files_are_counted_before_they_are_there(tmp_path: Path) -> None:
    boxes = tmp_path / "COCO_val2017_detections_AP_H_56_person.json"
    assert people_in(tmp_path / "person_keypoints_val2017.json", boxes) == 104_125
    assert people_in(tmp_path / "person_keypoints_val2017.json", None) == 6352


@pytest.mark.parametrize(
    ("everyone", "annotated", "wanted", "count"),
    [
        pytest.param(104_125, 6352, None, 104_125, id="all"),
        # Of 16.39 boxes for each annotated person.
        pytest.param(104_125, 6352, 1000, 16_392, id="boxes of a subset"),
        pytest.param(6352, 6352, 1000, 1000, id="people of a subset"),
        pytest.param(300, 300, 1000, 300, id="no more than there are"),
        pytest.param(None, 6352, 1000, None, id="nothing is known"),
        pytest.param(104_125, None, 1000, None, id="only boxes are known"),
    ],
)
def test_people_of_a_subset_are_its_share(
    everyone: int | None, annotated: int | None, wanted: int | None, count: int | None
) -> None:
    assert evaluated(everyone, annotated, wanted) == count


def test_what_was_measured_here_comes_before_the_table(tmp_path: Path) -> None:
    latency = tmp_path / "latency.json"
    assert measured_rows(latency) == {}
    latency.write_text('{"rows": [1]}')
    assert measured_rows(latency) == {}
    latency.write_text(json.dumps({"rows": {"row": {"latency": {"median_ms": 250.0}}}}))
    assert measured_rows(latency) == {"row": 0.25}
    config = {
        "variants": {name: {"backend": "ncnn", "precision": "fp32"} for name in ("row", "other")},
        "studies": {"flipped": {"protocol": {"flip_test": True}}},
    }
    network = Network(RATES["ncnn", "fp32"], measured=measured_rows(latency))
    assert [row_seconds(name, network, config, "flipped") for name in ("row", "other")] == [0.5, 2.0]


@pytest.mark.parametrize(
    ("people", "seconds", "minutes", "shards"),
    [
        # 104,125 people of .617 s are 64,245 s: 16,061 s on four threads, 27 times ten minutes.
        pytest.param(104_125, 0.617, 10, 27, id="Hourglass52"),
        pytest.param(1000, 2.4, 10, 1, id="exactly one"),
        pytest.param(1000, 2.5, 10, 2, id="a little more"),
        pytest.param(1000, 100, 0.01, 15, id="no fewer than 64 people"),
        pytest.param(10, 100, 0.01, 1, id="very few people"),
    ],
)
def test_shards_take_so_many_minutes_each(people: int, seconds: float, minutes: float, shards: int) -> None:
    assert number_of_shards(people, seconds, minutes, threads=4) == shards


def test_newest_shards_of_an_earlier_run_are_found(tmp_path: Path) -> None:
    crops, others = tmp_path / "crops", tmp_path / "shards"
    assert shards_in([crops, others]) is None
    others.mkdir()
    (others / "1-of-5.benchmark.tsv").touch()
    assert shards_in([crops, others]) == 5
    for number, name in enumerate(("2-of-9", "1-of-3.log", "notes-of-2")):
        (crops / name).mkdir(parents=True)
        os.utime(crops / name, (number, number))
    assert shards_in([crops, others]) == 3


def test_costs_of_jobs_worked_by_hand() -> None:
    network = Network(gmac=10.0, bytes=100e6, pixels=1000)
    # Start 2 s, weights 1 s; 100 people, of a quarter second in the network and 3 ms beside it.
    assert list(seconds_of("predict", Work(network, people=100, rows=(0.25,)))) == pytest.approx([3.0, 25.3])
    # Start 8 s, weights 20 s; 60 rounds of .1 s, and of the slow row no more than 20 s; 8 rounds for throughput.
    assert list(seconds_of("latency", Work(network, rows=(0.1, 2.0)))) == pytest.approx([54.0 + 8 * 2.1, 0.0])
    assert bytes_of("evaluation_crops", Work(network, people=100)) == ("crops", 300_000)
    assert bytes_of("evaluation_crops", Work(network, people=100, kept=False)) == ("crops", 0)
    # In float32.
    assert bytes_of("calibration_crops", Work(network, calibration=100)) == ("crops", 1_200_000)
    # Four crops each, in uint8; fifteen milliseconds each.
    assert bytes_of("distillation_crops", Work(network, calibration=100)) == ("crops", 1_200_000)
    assert list(seconds_of("distillation_crops", Work(network, calibration=100))) == pytest.approx([1.5, 1.5])
    assert bytes_of("convert_ncnn", Work(network)) == ("networks", 75e6)
    assert download_bytes("host/zips/val2017.zip") == 816e6
    assert download_bytes("host/unknown.zip") == 0
