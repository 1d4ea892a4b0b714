"""Networks in ncnn on a Vulkan device: they compute what is asked of them, there, or say why not."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tests.unit.ncnn_fixtures import (
    INPUT_SHAPE,
    Builder,
    draw_crops,
    small_network,
    sqnr,
    weight,
    write_crops,
    write_int8,
)
from tests.unit.pose_fixtures import SPEC, pose_network
from tests.vulkan import NO_DEVICE, needs_vulkan

from posequant.base.errors import InputError
from posequant.base.files import read_json
from posequant.networks.ncnn import NcnnNetwork
from posequant.networks.opening import open_network
from posequant.networks.vulkan import Device, choose_device, find_device, vulkan_devices

ROOT = Path(__file__).parents[3]
Pair = tuple[Path, Path]


@pytest.fixture(scope="module")
def float_model(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return small_network().write(tmp_path_factory.mktemp("float"))


@pytest.fixture(scope="module")
def int8_model(float_model: Pair, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return write_int8(float_model, tmp_path_factory.mktemp("int8"))


def on_vulkan(pair: Pair, precision: str) -> NcnnNetwork:
    return NcnnNetwork(*pair, precision, INPUT_SHAPE, device=find_device())


def on_cpu(pair: Pair, precision: str) -> NcnnNetwork:
    return NcnnNetwork(*pair, precision, INPUT_SHAPE)


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@needs_vulkan
def test_fp32_computes_what_the_cpu_does(float_model: Pair) -> None:
    crops = draw_crops(4)
    network = on_vulkan(float_model, "fp32")
    for expected, found in zip(on_cpu(float_model, "fp32").forward(crops), network.forward(crops), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert [values.shape for values in network.forward(draw_crops(0))] == [(0, 5, 16, 12), (0, 6)]


@needs_vulkan
def test_fp16_differs_from_fp32_as_its_bits_do(float_model: Pair) -> None:
    """On x86 the CPU computes fp16 of these files as FP32, bit by bit: a network left to it would not differ."""
    crops = draw_crops(4)
    network = on_vulkan(float_model, "fp16")
    record = network.device_record()
    assert record is not None
    assert record["fp16"] in ("arithmetic", "storage")
    for expected, found in zip(on_cpu(float_model, "fp32").forward(crops), network.forward(crops), strict=True):
        assert 45 < sqnr(expected, found) < 75


@needs_vulkan
def test_int8_is_the_int8_of_the_cpu_and_no_float(float_model: Pair, int8_model: Pair) -> None:
    """Vulkan has its own kernels: sums agree as integers, and only a scale's last bit rounds a value otherwise."""
    crops = draw_crops(4)
    network = on_vulkan(int8_model, "int8")
    full, quantized = (on_cpu(*of).forward(crops) for of in ((float_model, "fp32"), (int8_model, "int8")))
    for in_float, expected, found in zip(full, quantized, network.forward(crops), strict=True):
        noise = sqnr(in_float, expected)
        assert sqnr(in_float, found) == pytest.approx(noise, abs=0.5)
        assert sqnr(expected, found) > noise + 10


@needs_vulkan
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_convolutions_run_on_the_device(float_model: Pair, int8_model: Pair, precision: str) -> None:
    """A layer that Vulkan lacks, ncnn computes on the CPU without a word."""
    record = on_vulkan(int8_model if precision == "int8" else float_model, precision).device_record()
    assert record is not None
    assert record["on_cpu"] == []
    assert (record["fp16"] is None) == (precision != "fp16")
    assert on_cpu(float_model, "fp32").device_record() is None


def padded(pair: Pair, layer: str, folder: Path) -> Pair:
    """The same network with a layer padded with another value than 0, for which Vulkan has no kernel in INT8."""
    lines = pair[0].read_text().splitlines()
    param = folder / "padded.param"
    param.write_text("".join(f"{line} 18=1.0\n" if line.split()[1:2] == [layer] else f"{line}\n" for line in lines))
    return param, pair[1]


@needs_vulkan
def test_a_layer_that_runs_on_the_cpu_is_recorded(int8_model: Pair, tmp_path: Path) -> None:
    pair = padded(int8_model, "conv_out", tmp_path)
    network, crops = on_vulkan(pair, "int8"), draw_crops(2)
    record = network.device_record()
    assert record is not None
    assert record["on_cpu"] == ["Convolution"]
    for expected, found in zip(on_cpu(pair, "int8").forward(crops), network.forward(crops), strict=True):
        assert sqnr(expected, found) > 30


@needs_vulkan
def test_int8_that_would_crash_on_its_way_from_the_cpu_is_refused(int8_model: Pair, tmp_path: Path) -> None:
    pair = padded(int8_model, "conv_a", tmp_path)
    on_cpu(pair, "int8").forward(draw_crops(1))
    with pytest.raises(InputError, match=r"layer conv_a hands on INT8 and has no Vulkan kernel"):
        on_vulkan(pair, "int8")


@needs_vulkan
def test_grouped_convolutions_are_right_in_fp16(tmp_path: Path) -> None:
    """ncnn computes them wrongly in bf16 on the CPU."""
    pair = (
        Builder()
        .add("Input", "in0", "", "in0")
        .convolution("conv", "in0", "a", weight(6, 3, 1, 1))
        .convolution("depthwise", "a", "b", weight(6, 1, 3, 3), group=6)
        .convolution("grouped", "b", "out0", weight(6, 3, 3, 3), group=2)
    ).write(tmp_path)
    crops = draw_crops(2)
    (expected,) = on_cpu(pair, "fp32").forward(crops)
    (found,) = on_vulkan(pair, "fp16").forward(crops)
    assert sqnr(expected, found) > 45


@needs_vulkan
def test_threads_that_share_a_network_get_each_their_own(float_model: Pair) -> None:
    crops = draw_crops(16, seed=4)
    network = on_vulkan(float_model, "fp32")
    expected = network.forward(crops)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(network.forward, np.split(crops, 8)))
    for index, output in enumerate(expected):
        np.testing.assert_array_equal(np.concatenate([part[index] for part in parts]), output)


@needs_vulkan
def test_activations_come_back_from_the_device(float_model: Pair) -> None:
    names = ["a", "c", "out0"]
    (crop,) = draw_crops(1)
    ours = on_vulkan(float_model, "fp32").activations(crop, names)
    for name, found, expected in zip(names, ours, on_cpu(float_model, "fp32").activations(crop, names), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=name)


@needs_vulkan
def test_a_precision_that_vulkan_lacks_is_refused(float_model: Pair) -> None:
    with pytest.raises(InputError, match=r"'ncnn-vulkan' with precision 'bf16' is not offered"):
        open_network("ncnn-vulkan", "bf16", float_model, SPEC)


@needs_vulkan
def test_a_device_is_found_by_its_number_or_a_part_of_its_name() -> None:
    first = vulkan_devices()[0]
    assert first == find_device("0") == find_device(first.name.upper()) == find_device(first.name[:4])
    for wanted in ("GeForce 9999", "99"):
        with pytest.raises(InputError, match=f"there is no Vulkan device '{wanted}'. There are 0: ") as refused:
            find_device(wanted)
        assert first.name in str(refused.value)


def test_a_whole_name_is_not_that_of_a_device_whose_name_begins_so() -> None:
    devices = [Device(place, name, "discrete GPU", 1) for place, name in enumerate(("RTX 3080 Ti", "RTX 3080"))]
    assert choose_device(devices, "RTX 3080").index == 1
    assert choose_device(devices, "rtx").index == 0


@needs_vulkan
def test_devices_are_listed() -> None:
    done = run(ROOT / "scripts/vulkan_devices.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:-1] == list(map(str, vulkan_devices()))
    assert done.stdout.splitlines()[-1] == f"Rows of ncnn-vulkan run on {find_device()}."


def test_a_machine_without_a_device_is_told_what_to_install() -> None:
    done = run(ROOT / "scripts/vulkan_devices.py", **NO_DEVICE)
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith("error: there is no Vulkan device. Install the driver of the GPU")
    assert "apt-get install mesa-vulkan-drivers libvulkan1" in said


@needs_vulkan
def test_latency_says_on_which_device_it_was_measured(tmp_path: Path) -> None:
    """Networks are opened in forked processes first: Vulkan must start in each anew."""
    SPEC.save(tmp_path / "model.json")
    write_crops(tmp_path / "crops", draw_crops(2))
    pair = tmp_path / "float.param", tmp_path / "float.bin"
    pose_network().write(*pair)
    rows = [("ncnn", "ncnn", "fp32"), ("vulkan", "ncnn-vulkan", "fp32"), ("half", "ncnn-vulkan", "fp16")]
    done = run(
        ROOT / "scripts/latency.py",
        *("--model", tmp_path / "model.json", "--crops", tmp_path / "crops", "--reference", *pair),
        *(word for row in rows for word in ("--row", *row, *pair)),
        *("--rounds", "10", "--seconds", "0.1", "--out", tmp_path / "latency.json"),
    )
    assert done.returncode == 0, done.stderr
    measured = read_json(tmp_path / "latency.json")["rows"]
    assert "device" not in measured["ncnn"]
    device = find_device()
    for name in ("vulkan", "half"):
        record = measured[name]["device"]
        assert (record["name"], record["kind"]) == (device.name, device.kind)
        assert measured[name]["latency"]["against_fp32"] > 0
    assert measured["half"]["device"]["fp16"] is not None
