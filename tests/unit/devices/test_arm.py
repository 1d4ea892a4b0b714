"""An INT8 network on emulated ARM cores, and what a certificate says of it.

Where ARM is not emulated (`make arm`), what needs it is skipped.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tests.unit.evaluation_fixtures import draw_dataset
from tests.unit.ncnn_fixtures import INPUT_SHAPE, draw_crops, small_network, write_crops
from tests.unit.pose_fixtures import SPEC, pose_network

from posequant.base.errors import InputError
from posequant.base.files import sha256, write_json
from posequant.data.crops import Cropper
from posequant.devices import RUNNER
from posequant.devices.arm import emulate
from posequant.devices.arm_certificate import certify_arm
from posequant.devices.arm_page import render
from posequant.devices.emulation import Emulation, failure
from posequant.devices.exchange import Result, Way, write_networks, write_people
from posequant.devices.levels import LevelDifference, compared_blobs, layer_levels
from posequant.evaluate.oks import shift_of_predictions
from posequant.evaluate.predict import make_predictions
from posequant.evaluate.predictions import Predictions
from posequant.ncnn_format.model import NcnnModel
from posequant.networks.ncnn import NcnnNetwork
from posequant.quantize.ncnn2int8 import quantize_files
from posequant.quantize.ncnn2table import write_table
from posequant.workflow.settings.base import checked
from posequant.workflow.settings.certify import Sampling
from posequant.workflow.settings.devices import Arm

ARM = Path(__file__).parents[3] / ".arm"
needs_arm = pytest.mark.skipif(not (ARM / "setup.json").is_file(), reason="ARM is not emulated here: run `make arm`")
CORES = ("cortex-a53", "cortex-a76")
# One of them without, one with a flip test.
FLIPPED_ON = "cortex-a76"
# Pixels become what the networks were calibrated on, about.
PHOTO_SPEC = replace(SPEC, mean=(120.0, 120.0, 120.0), std=(60.0, 60.0, 60.0))


class Case(NamedTuple):
    """A small network with a depthwise layer, in INT8 and in FP32, and people to run it on."""

    folder: Path
    model: Path
    int8: tuple[Path, Path]
    full: tuple[Path, Path]
    images: Path
    annotations: Path

    def predictions(self, precision: str, *, flip_test: bool = False) -> Path:
        """The file of what it predicts here."""
        path = self.folder / f"{precision}{'-flipped' if flip_test else ''}.npz"
        if not path.is_file():
            make_predictions(
                model=self.model,
                variant={"int8": "ncnn-int8", "fp32": "ncnn"}[precision],
                backend="ncnn",
                precision=precision,
                artifacts={"int8": self.int8, "fp32": self.full}[precision],
                images=self.images,
                annotations=self.annotations,
                detections=None,
                flip_test=flip_test,
                threads=1,
            ).save(path)
        return path

    def emulate(self, core: str, *, flip_test: bool = False) -> tuple[Predictions, dict[str, Any]]:
        return emulate(
            core=core,
            emulation=ARM,
            model=self.model,
            variant="ncnn-int8",
            artifacts=self.int8,
            reference_artifacts=self.full,
            annotations=self.annotations,
            images=self.images,
            detections=None,
            crops=None,
            flip_test=flip_test,
            threads=1,
            workplace=self.folder / f"{core}{flip_test}.part",
        )


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("arm")
    dataset = draw_dataset(folder / "val", count=3)
    PHOTO_SPEC.save(folder / "model.json")
    int8, full = quantized(pose_network(), folder)
    return Case(folder, folder / "model.json", int8, full, dataset.images, dataset.annotations)


def quantized(model: NcnnModel, folder: Path) -> tuple[tuple[Path, Path], tuple[Path, Path]]:
    """Write a network in INT8 and in FP32; return the files of both."""
    int8, full = ((folder / f"{name}.param", folder / f"{name}.bin") for name in ("int8", "float"))
    model.write(*full)
    write_crops(folder / "crops", draw_crops(4))
    write_table(folder / "table", *full, folder / "crops", "kl")
    quantize_files(*full, folder / "table", *int8)
    return int8, full


@pytest.fixture(scope="module")
def emulated(case: Case) -> dict[str, tuple[Predictions, dict[str, Any]]]:
    return {core: case.emulate(core, flip_test=core == FLIPPED_ON) for core in CORES}


Emulated = Mapping[str, tuple[Predictions, dict[str, Any]]]


@needs_arm
@pytest.mark.parametrize("core", CORES)
def test_float_is_as_on_x86(emulated: Emulated, core: str) -> None:
    difference = emulated[core][1]["to_x86"]["fp32"]
    assert difference["sqnr_db"] is None or difference["sqnr_db"] > 100


@needs_arm
@pytest.mark.parametrize("core", CORES)
def test_a_depthwise_layer_rounds_otherwise_and_no_other_does(emulated: Emulated, core: str) -> None:
    layers = {layer["name"]: layer for layer in emulated[core][1]["layers"]}
    own = layers.pop("convdw_b")["own"]
    assert own["largest"] == 1
    assert own["share"] < 0.01
    for name, layer in layers.items():
        assert (layer["own"]["largest"] if layer["own"] else layer["own_float"]) < 1e-6, name
    # What it hands on, the next one gets.
    assert layers["conv_a"]["input"]["share"] == 0
    assert layers["conv_c"]["input"] == own


@needs_arm
@pytest.mark.parametrize("core", CORES)
def test_int8_is_nearer_to_x86_without_packing(emulated: Emulated, core: str) -> None:
    packed, unpacked = (emulated[core][1]["to_x86"][way]["sqnr_db"] for way in ("int8", "unpacked"))
    assert packed > 40
    assert unpacked is None or unpacked > packed


@needs_arm
@pytest.mark.parametrize("core", CORES)
def test_people_are_where_they_are_on_x86(case: Case, emulated: Emulated, core: str) -> None:
    here, there = Predictions.load(case.predictions("int8", flip_test=core == FLIPPED_ON)), emulated[core][0]
    assert there.identity["protocol"] == here.identity["protocol"]
    assert there.identity["sha256"] == here.identity["sha256"]
    assert there.identity["core"] == core
    oks = shift_of_predictions(here, there).mean_oks
    assert oks is not None
    assert oks > 0.99


@needs_arm
def test_features_are_those_of_the_core(emulated: Emulated) -> None:
    assert [emulated[core][1]["features"] for core in CORES] == [["NEON"], ["NEON", "FP16", "dotprod"]]


@needs_arm
def test_winograd_changes_nothing(emulated: Emulated) -> None:
    for core in CORES:
        assert emulated[core][1]["winograd_on_and_off"]["equal"], core


@needs_arm
def test_certificate_of_an_emulated_core(case: Case, emulated: Emulated, tmp_path: Path) -> None:
    there, comparison = emulated["cortex-a53"]
    there.save(tmp_path / "there.npz")
    write_json(tmp_path / "comparison.json", comparison)
    certificate = certify(case, [tmp_path / "there.npz"], [tmp_path / "comparison.json"])
    page = render(certificate)
    assert "differences begin at **convdw_b** (depthwise 3x3)" in page
    assert "ms" not in page.split()


@needs_arm
def test_crash_of_the_emulated_program_is_named(tmp_path: Path) -> None:
    script = tmp_path / "crash.py"
    script.write_text("import ctypes, sys\nprint('about to', file=sys.stderr)\nctypes.string_at(0)\n")
    heard: list[str] = []
    with pytest.raises(InputError, match=r"on the emulated cortex-a53 crashed \(SIGSEGV\)"):
        Emulation.open(ARM).run("cortex-a53", script, [], heard.append)
    assert heard[0] == "about to"


def test_missing_emulation_says_how_to_set_it_up(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ARM is not emulated here yet\. Set it up with `make arm`"):
        Emulation.open(tmp_path / ".arm")


@pytest.mark.parametrize(
    ("status", "words", "said"),
    [
        (-11, [], "crashed (SIGSEGV)"),
        (139, ["qemu: uncaught target signal 6 (Aborted) - core dumped"], "crashed (SIGABRT)"),
        (-9, ["outputs-int8-00008.npz"], "crashed (SIGKILL). What it said last:\noutputs-int8-00008.npz"),
        (1, ["error: the disk is full"], "failed:\nerror: the disk is full"),
    ],
)
def test_how_an_emulated_program_ended_is_said(status: int, words: list[str], said: str) -> None:
    assert said in failure("cortex-a53", status, words)


def test_levels_by_hand() -> None:
    one, other = np.array([[1, 2], [3, -4]], np.float32), np.array([[1, 5], [3, -5]], np.float32)
    assert LevelDifference.of([(one, one), (one, other)]) == LevelDifference(values=8, share=0.25, largest=3)


def test_layers_of_one_processor_do_not_differ(tmp_path: Path) -> None:
    model, blobs = blobs_of_small_network(tmp_path)
    layers = layer_levels(model, blobs, blobs)
    assert [layer.name for layer in layers] == [
        *("conv_a", "conv_b", "convdw_c", "conv_d", "conv_f", "conv_g", "conv_out", "fc")
    ]
    assert all(layer.input.largest == 0 for layer in layers)
    assert all(layer.own.largest == 0 if layer.own else layer.own_float == 0 for layer in layers)


def test_a_layer_that_rounds_otherwise_is_told_from_those_that_hand_it_on(tmp_path: Path) -> None:
    model, here = blobs_of_small_network(tmp_path)
    there = [dict(blobs) for blobs in here]
    for name in ("a", "f"):  # INT8 and float
        there[0][name] = there[0][name].copy()
    there[0]["a"][0, 0, 0] += 2
    there[0]["f"][0, 0, :6] *= 1.5
    layers = {layer.name: layer for layer in layer_levels(model, here, there)}
    share = 1 / (2 * 8 * 16 * 12)
    assert layers["conv_a"].own == LevelDifference(values=2 * 8 * 16 * 12, share=share, largest=2)
    # It gets the changed value, and what it handed on is not what it would make of it.
    assert layers["conv_b"].input == LevelDifference(values=2 * 8 * 16 * 12, share=share, largest=2)
    assert layers["conv_b"].own is not None
    assert layers["conv_b"].own.largest > 0
    own = layers["conv_f"].own_float
    assert own is not None
    largest = max(float(np.abs(blobs["f"]).max()) for blobs in here)
    assert own == pytest.approx(float(np.abs(here[0]["f"][0, 0, :6]).max()) / 2 / largest)
    assert layers["convdw_c"].input.largest == 0


def blobs_of_small_network(folder: Path) -> tuple[NcnnModel, list[dict[str, Any]]]:
    int8, _ = quantized(small_network().model(), folder)
    model, network = NcnnModel.read(*int8), NcnnNetwork(*int8, "int8", INPUT_SHAPE)
    names = compared_blobs(model)
    return model, [dict(zip(names, network.activations(crop, names), strict=True)) for crop in draw_crops(2)]


def test_the_runner_gives_back_what_the_network_computes_here(case: Case, tmp_path: Path) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (11, 16, 12, 3)).astype(np.uint8)
    ways = {"int8": Way(case.int8, "int8"), "fp32": Way(case.full, "fp32")}
    write_networks(tmp_path / "networks", PHOTO_SPEC, ways)
    write_people(tmp_path / "people.npz", crops)
    files: list[str | Path] = [
        "--package",
        tmp_path / "networks",
        "--people",
        tmp_path / "people.npz",
        "--out",
        tmp_path / "out.zip",
    ]
    options = ["--no-latency", "--layers", "1", "--threads", "1"]
    subprocess.run([sys.executable, RUNNER, *files, *options], check=True, capture_output=True)
    result = Result(tmp_path / "out.zip")
    result.require_run(list(ways))
    normalised = Cropper(PHOTO_SPEC).normalise(crops)
    for name, way in ways.items():
        network = way.network(PHOTO_SPEC)
        np.testing.assert_array_equal(result.outputs(name, network)[0], network.forward(normalised)[0], err_msg=name)
    (values,) = ways["int8"].network(PHOTO_SPEC).activations(normalised[0], ["b"])
    np.testing.assert_array_equal(result.layers("int8", 0)["b"], values)


def test_damaged_result_is_an_error(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "out.zip"
    path.write_bytes(b"PK")
    with pytest.raises(InputError, match="not the result of a run, or damaged"):
        Result(path).outputs("int8", Way(case.int8, "int8").network(PHOTO_SPEC))


def test_certificate_of_equal_predictions(case: Case, tmp_path: Path) -> None:
    certificate = certify(case, [case.predictions("int8")], [comparison_file(case, tmp_path)])
    (core,) = certificate["cores"]
    assert core["with_x86"]["statistics"]["AP"]["difference"] == 0
    assert core["with_x86"]["without_labels"]["oks"]["value"] == 1
    # With FP32 it is what INT8 on x86 is.
    assert core["with_fp32"] == certificate["x86_with_fp32"]
    page = render(certificate)
    assert "**cortex-a53: as on x86.**" in page
    assert "cortex-a53, 1 people: all 1 layers in INT8 get and hand on what they do on x86." in page
    assert sha256(case.predictions("int8")) in page


def test_page_says_where_x86_without_packing_gives_the_same(case: Case, tmp_path: Path) -> None:
    equal = {"max_abs": 0.0, "rms": 0.0, "sqnr_db": None}
    apart = {"max_abs": 0.1, "rms": 0.01, "sqnr_db": 22.3}
    comparison = comparison_file(case, tmp_path, to_x86={"int8": apart, "unpacked": equal, "fp32": equal})
    page = render(certify(case, [case.predictions("int8")], [comparison]))
    assert "Its outputs of 1 people have the bits of x86 without packing." in page
    assert "| cortex-a53 | 22.3 dB | the same bits" in page


def test_certificate_of_another_network_is_refused(case: Case, tmp_path: Path) -> None:
    other = comparison_file(case, tmp_path, sha256={"artifact": {"int8.bin": "0"}})
    with pytest.raises(InputError, match=r"comparison\.json: made by another network than .*int8\.npz"):
        certify(case, [case.predictions("int8")], [other])
    with pytest.raises(InputError, match=r"fp32\.npz: made by another network than .*int8\.npz"):
        certify(case, [case.predictions("fp32")], [comparison_file(case, tmp_path)])


def certify(case: Case, emulated: list[Path], comparisons: list[Path]) -> dict[str, Any]:
    return certify_arm(
        predictions=case.predictions("int8"),
        reference=case.predictions("fp32"),
        emulated=emulated,
        comparisons=comparisons,
        annotations=case.annotations,
        sampling=Sampling(resamples=100),
    )


def comparison_file(case: Case, folder: Path, **changes: Any) -> Path:
    """What `emulate` says of a core that gives the bits of x86."""
    equal = {"max_abs": 0.0, "rms": 0.0, "sqnr_db": None}
    content = {
        "core": "cortex-a53",
        "features": [],
        "crops": 1,
        "to_x86": dict.fromkeys(("int8", "unpacked", "fp32"), equal),
        "to_fp32": {"x86": equal, "arm": equal},
        "winograd_on_and_off": {"crops": 1, "largest_difference": 0.0, "equal": True},
        "crops_within": 1,
        "layers": [
            {
                "name": "conv_a",
                "kernel": "1x1",
                "input": {"values": 8, "share": 0.0, "largest": 0},
                "own": None,
                "own_float": 0.0,
            }
        ],
        "sha256": {"artifact": {path.name: sha256(path) for path in case.int8}},
        "versions": {"qemu": "7.2"},
        **changes,
    }
    path = folder / "comparison.json"
    path.write_text(json.dumps(content))
    return path


def test_options_are_the_same_everywhere(case: Case) -> None:
    int8, full = Way(case.int8, "int8").options(), Way(case.full, "fp32", packing=False).options()
    assert list(int8) == sorted(full)
    assert (int8["use_int8_inference"], int8["use_winograd_convolution"], int8["use_packing_layout"]) == (
        *(True, False, True),
    )
    assert (full["use_int8_inference"], full["use_fp16_arithmetic"], full["use_packing_layout"]) == (False,) * 3


def test_a_core_is_named_once() -> None:
    with pytest.raises(InputError, match="'cortex-a53' is listed twice"):
        checked(Arm, {"cores": ["cortex-a53", "cortex-a53"]}, what="arm")
