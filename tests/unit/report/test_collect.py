from pathlib import Path
from typing import Any

import pytest
from tests.unit.result_fixtures import (
    CALIBRATION,
    certificate,
    cost,
    metrics,
    network_records,
    result,
    row_records,
    settings,
)

from posequant.base.errors import InputError
from posequant.report.collect import Record, collect, merge


@pytest.mark.parametrize(
    ("rows", "reference"),
    [
        ([("ncnn", "ncnn", "fp32"), ("onnxruntime", "onnxruntime", "fp32"), ("pytorch", "pytorch", "fp32")], "pytorch"),
        (
            [("onnxruntime-int8", "onnxruntime", "int8"), ("ncnn", "ncnn", "fp32"), ("o", "onnxruntime", "fp32")],
            "o",
        ),
        ([("ncnn-int8", "ncnn", "int8"), ("ncnn", "ncnn", "fp32")], "ncnn-int8"),
    ],
)
def test_reference_is_pytorch_else_onnx_runtime_else_the_first(
    rows: list[tuple[str, str, str]], reference: str
) -> None:
    study = result(*(row_records(metrics(*row, 0.5)) for row in rows))
    assert study.networks[0].reference.variant == reference
    assert sum(row.reference for row in study.networks[0].rows) == 1


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("instances", 24, "instances is 25 and 24"),
        ("protocol", {"boxes": "ground-truth", "flip_test": True}, "protocol is"),
        (
            "sha256",
            {"model": "1", "artifact": {}, "annotations": "dead", "detections": None},
            "sha256 of the annotations is",
        ),
    ],
)
def test_rows_on_different_ground_are_refused(key: str, value: object, named: str) -> None:
    first, other = metrics("ncnn-int8", "ncnn", "int8", 0.57), metrics("pytorch", "pytorch", "fp32", 0.6)
    with pytest.raises(InputError, match=f"net: ncnn-int8 and pytorch cannot be compared: {named}"):
        result(row_records(first), row_records(other | {key: value}))


def test_networks_on_different_ground_are_refused() -> None:
    of = metrics("ncnn", "ncnn", "fp32", 0.57)
    networks = [
        network_records([row_records(of)], "a"),
        network_records([row_records(of | {"model": "b", "instances": 24})], "b"),
    ]
    with pytest.raises(InputError, match="a and b: evaluated under different protocols or on different people"):
        collect("mine", settings(networks), networks, CALIBRATION)


def of_another_network(whose: str, of: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The cost, certificate and attribution of a row, one of them of another network."""
    other = {"net.bin": "other"}
    costs = {of["variant"]: cost(of) | ({"sha256": other} if whose == "latency" else {})}
    certified = certificate(of, "ncnn")
    if whose == "certificate":
        certified["sha256"] = {"artifact": other}
    attributed = {"sha256": {"int8": other if whose == "attribution" else of["sha256"]["artifact"]}}
    return costs, certified, attributed


@pytest.mark.parametrize("whose", ["latency", "certificate", "attribution"])
def test_figures_of_two_networks_are_refused(whose: str) -> None:
    of = metrics("ncnn-int8", "ncnn", "int8", 0.57)
    costs, certified, attributed = of_another_network(whose, of)
    row = row_records(of, certified, attribution=Record(Path("attribution.json"), attributed))
    networks = [network_records([row], costs=costs)]
    with pytest.raises(InputError, match=f"made with another network than the row's {whose}"):
        collect("mine", settings(networks), networks, CALIBRATION)


def test_row_that_was_not_timed_is_named() -> None:
    of = metrics("ncnn", "ncnn", "fp32", 0.57)
    networks = [network_records([row_records(of)])]
    del networks[0].latency.content["rows"]["ncnn"]
    with pytest.raises(InputError, match=r"metrics\.json: .*latency\.json says nothing of this row's latency"):
        collect("mine", settings(networks), networks, CALIBRATION)


def test_calibration_is_counted_and_not_listed() -> None:
    study = result(row_records(metrics("ncnn", "ncnn", "fp32", 0.5)))
    assert study.calibration == {**CALIBRATION, "people": 3}


def test_rows_of_one_title_are_told_apart_by_their_names() -> None:
    rows = [metrics(name, "ncnn", "int8", 0.5) for name in ("ncnn-int8-a", "a", "b")]
    titles = [row.title for row in result(*map(row_records, rows)).networks[0].rows]
    assert titles == ["ncnn INT8 a (ncnn-int8-a)", "ncnn INT8 a (a)", "ncnn INT8 b"]


def test_result_of_a_study_is_that_of_its_networks_together() -> None:
    networks = [
        network_records([row_records(metrics("ncnn", "ncnn", "fp32", 0.6, model=name))], name)
        for name in ("one", "two")
    ]
    together = collect("mine", settings(networks), networks, CALIBRATION)
    apart = [collect("mine", settings([network]), [network], CALIBRATION) for network in networks]
    assert merge(apart) == together


def test_networks_on_different_ground_are_not_put_together() -> None:
    networks = [
        network_records([row_records(metrics("ncnn", "ncnn", "fp32", 0.6, model=name, images=images))], name)
        for name, images in (("one", 10), ("two", 11))
    ]
    with pytest.raises(InputError, match="one and two: evaluated under different protocols or on different people"):
        merge([collect("mine", settings([network]), [network], CALIBRATION) for network in networks])
