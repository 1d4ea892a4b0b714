from typing import Any

import pytest
from tests.unit.result_fixtures import (
    CALIBRATION,
    certificate,
    compared,
    cost,
    estimate,
    latency,
    metrics,
    network_records,
    result,
    row_records,
    settings,
    small_result,
)

from posequant.report.collect import collect
from posequant.report.words import Words, in_words


def said(**changed: Any) -> Words:
    int8 = metrics("ncnn-int8", "ncnn", "int8", 0.57)
    study = result(
        row_records(metrics("ncnn", "ncnn", "fp32", 0.59)), row_records(int8, certificate(int8, "ncnn", **changed))
    )
    words = in_words(study.networks[0], study.networks[0].rows[1])
    assert words is not None
    return words


def test_row_without_a_certificate_has_no_verdict() -> None:
    (network,) = small_result().networks
    assert [in_words(network, row) is None for row in network.rows] == [True, True, False]


def test_losses_stand_beside_their_limits() -> None:
    assert said().losses == (
        "Loss of OKS to FP32: 0.0300 [0.0259, 0.0350], limit 0.03, undecided on 10 images.",
        "Loss of AP: 0.0200 [0.0095, 0.0310], limit 0.02, undecided on 10 images.",
    )


@pytest.mark.parametrize(
    ("oks", "headline"),
    [
        (estimate(0.99, 0.985, 0.993), "within the tolerance"),
        (estimate(0.95, 0.945, 0.955), "outside the tolerance"),
        (estimate(0.975, 0.965, 0.98), "undecided on 10 images; about 40 would decide"),
    ],
)
def test_headline_says_what_is_decided(oks: dict[str, Any], headline: str) -> None:
    without = {"oks": oks, "within": None}
    kept = {"AP": compared(0.5, 0.499, -0.003, 0.002)}
    assert said(without_labels=without, statistics=kept).headline == headline


def test_says_what_is_kept_and_gained() -> None:
    full, int8 = metrics("ncnn", "ncnn", "fp32", 0.59), metrics("ncnn-int8", "ncnn", "int8", 0.57)
    fast = cost(int8, latency=latency(5.0, against_fp32=1.9), size_bytes=1_000_000)
    costs = {"ncnn": cost(full, size_bytes=4_000_000), "ncnn-int8": fast}
    networks = [network_records([row_records(full), row_records(int8, certificate(int8, "ncnn"))], costs=costs)]
    (network,) = collect("mine", settings(networks), networks, CALIBRATION).networks
    words = in_words(network, network.rows[1])
    assert words is not None
    assert words.gained == (
        "It keeps 96.6% of FP32's AP [95.0%, 99.2%], moves 90.0% of the keypoints by no more than 2 px, is 1.9x as "
        "fast as ncnn FP32 and has 25% of its size."
    )


def test_note_of_the_configuration_stands_at_the_end() -> None:
    int8 = metrics("ncnn-int8", "ncnn", "int8", 0.57)
    networks = [network_records([row_records(int8, certificate(int8, "ncnn"))])]
    noted = settings(networks) | {"variants": {"ncnn-int8": {"note": "Chosen on these images."}}}
    (network,) = collect("mine", noted, networks, CALIBRATION).networks
    words = in_words(network, network.rows[0])
    assert words is not None
    assert words.text.endswith("undecided on 10 images. Chosen on these images.")


def test_says_nothing_that_is_not_known() -> None:
    int8 = metrics("ncnn-int8", "ncnn", "int8", 0.57)
    nothing = {"oks": None, "within": None}
    alone = result(row_records(int8, certificate(int8, "ncnn", share_of_fp32=None, without_labels=nothing)))
    words = in_words(alone.networks[0], alone.networks[0].rows[0])
    assert words is not None
    assert words.gained == ""
    assert words.losses[0] == "Loss of OKS to FP32: not known (limit 0.03)."
