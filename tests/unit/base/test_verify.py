"""The comparison of two runtimes' outputs."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.export_fixtures import random_crops

from posequant.base.errors import InputError
from posequant.base.files import sha256, write_json
from posequant.base.verify import Tensor, as_made, compare, require_same, run_onnx


def test_known_difference() -> None:
    difference = compare([np.array([3, 4], np.float32)], [np.array([3.3, 3.6], np.float32)])
    assert difference.max_abs == pytest.approx(0.4, abs=1e-6)
    assert difference.rms == pytest.approx(np.sqrt((0.09 + 0.16) / 2), abs=1e-6)
    assert difference.sqnr_db == pytest.approx(10 * np.log10(25 / 0.25), abs=1e-4)


def test_record_that_is_none_is_refused(tmp_path: Path) -> None:
    network, record = tmp_path / "net.onnx", tmp_path / "net.json"
    network.write_bytes(b"network")
    assert as_made([network]) == {network: sha256(network)}
    for content, message in (
        ({"sha256": "abc"}, "not the record"),
        ([], "not the record"),
        ({"sha256": {}}, "nothing"),
    ):
        write_json(record, content)
        with pytest.raises(InputError, match=message):
            as_made([network, record])


def test_equal_outputs_have_no_noise() -> None:
    outputs = [np.ones((2, 3), np.float32), np.zeros(4, np.float32)]
    assert compare(outputs, outputs).sqnr_db is None


def test_noise_on_an_all_zero_output_is_too_much() -> None:
    with pytest.raises(InputError, match=r"step: .* does not compute the same"):
        require_same([np.zeros(4, np.float32)], [np.full(4, 1e-9, np.float32)], 40, "step")


@given(scale=st.floats(1e-3, 1e3), decibel=st.floats(10, 90))
def test_sqnr_does_not_depend_on_scale(scale: float, decibel: float) -> None:
    signal = np.random.default_rng(0).standard_normal(1000)
    noise = np.roll(signal, 1) * 10 ** (-decibel / 20)
    found = compare([(signal * scale).astype("f4")], [((signal + noise) * scale).astype("f4")])
    assert found.sqnr_db == pytest.approx(decibel, abs=0.05)


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        ([np.zeros((1, 2), np.float32)], "shapes"),
        ([np.zeros(3, np.float32)] * 2, "shapes"),
        ([np.array([0, 1, np.nan], np.float32)], "converted network gives values that are not finite"),
    ],
)
def test_incomparable_outputs_are_refused(candidate: list[Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare([np.ones(3, np.float32)], candidate)


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a network")
    with pytest.raises(InputError, match=r"model\.onnx: ONNX Runtime cannot load it"):
        run_onnx(path, random_crops())
