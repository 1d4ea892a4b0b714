"""Byte for byte what the official ncnn2int8 wrote, and nearly what ncnn2table did, for a real network.

The folder is not part of the repository. POSEQUANT_GOLDEN names it; it holds a float model `NAME.ncnn.param` and
`.bin`, `crops.npz` (key `crops`: uint8 (N, H, W, 3), RGB), and for the methods kl and aciq `NAME.METHOD.table` and
`NAME.METHOD.int8.param` and `.bin`, all written by the official tools.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from tests.unit.ncnn_fixtures import write_crops

from posequant.ncnn_format.model import NcnnModel
from posequant.quantize.ncnn2int8 import quantize_files
from posequant.quantize.ncnn2table import write_table
from posequant.quantize.table import CalibrationTable

FOLDER = Path(os.environ.get("POSEQUANT_GOLDEN", ""))
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

pytestmark = [
    pytest.mark.skipif(
        "POSEQUANT_GOLDEN" not in os.environ, reason="POSEQUANT_GOLDEN names no folder of files by the official tools"
    ),
    pytest.mark.parametrize("method", ["kl", "aciq"]),
]


@pytest.fixture(scope="module")
def stem() -> str:
    return next(FOLDER.glob("*.ncnn.param")).name.removesuffix(".ncnn.param")


def pair(*parts: str) -> tuple[Path, Path]:
    name = ".".join(parts)
    return FOLDER / f"{name}.param", FOLDER / f"{name}.bin"


def test_files_are_written_as_they_were_read(method: str, stem: str, tmp_path: Path) -> None:
    for source in (pair(stem, "ncnn"), pair(stem, method, "int8")):
        NcnnModel.read(*source).write(tmp_path / "param", tmp_path / "bin")
        assert (tmp_path / "param").read_bytes() == source[0].read_bytes()
        assert (tmp_path / "bin").read_bytes() == source[1].read_bytes()
    table = FOLDER / f"{stem}.{method}.table"
    CalibrationTable.read(table).write(tmp_path / "table")
    assert (tmp_path / "table").read_bytes() == table.read_bytes()


def test_ncnn2int8_writes_the_same_files(method: str, stem: str, tmp_path: Path) -> None:
    table = FOLDER / f"{stem}.{method}.table"
    quantize_files(*pair(stem, "ncnn"), table, tmp_path / "param", tmp_path / "bin")
    expected = pair(stem, method, "int8")
    assert (tmp_path / "param").read_bytes() == expected[0].read_bytes()
    assert (tmp_path / "bin").read_bytes() == expected[1].read_bytes()


def test_ncnn2table_finds_the_same_scales(method: str, stem: str, tmp_path: Path) -> None:
    pixels = np.load(FOLDER / "crops.npz")["crops"]
    crops = ((pixels - np.array(MEAN)) / np.array(STD)).astype(np.float32).transpose(0, 3, 1, 2)
    write_crops(tmp_path / "crops", np.ascontiguousarray(crops))
    write_table(tmp_path / "table", *pair(stem, "ncnn"), tmp_path / "crops", method, threads=2)
    ours = CalibrationTable.read(tmp_path / "table")
    official = CalibrationTable.read(FOLDER / f"{stem}.{method}.table")
    assert list(ours.weight_scales) == list(official.weight_scales)
    for name, scales in official.weight_scales.items():
        np.testing.assert_array_equal(ours.weight_scales[name], scales, err_msg=name)
    # Activations differ in the last digits between builds of ncnn; a threshold of KL may move by a bin of 128 or more.
    tolerance = 1 / 128 if method == "kl" else 1e-5
    for name, scale in official.activation_scales.items():
        np.testing.assert_allclose(ours.activation_scales[name], scale, rtol=tolerance, err_msg=name)
