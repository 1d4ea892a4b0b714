"""Files of first studies, of networks that find spots of 17 colours: with wrong colours they find nothing."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper
from tests.unit.evaluation_fixtures import Model, export_onnx
from tests.unit.ncnn_fixtures import Builder

from posequant.base.errors import InputError
from posequant.base.model_spec import ModelSpec
from posequant.data.dataset import load_annotations
from posequant.demo.drawing import Kind
from posequant.demo.hand import HAND
from posequant.demo.person import PERSON
from posequant.demo.scenes import write_dataset
from posequant.study.candidates import Normalisation, normalisations, readings
from posequant.study.new_study import Wanted, new_study
from posequant.study.opened import open_onnx
from posequant.study.study_file import named_model
from posequant.study.trial import LabelledPeople, Trial, try_all

ROOT = Path(__file__).parents[3]
SIZE, STRIDE = (64, 96), 4
# All of one brightness, and none near another: 17 of those whose channels are multiples of 60 that add up to 360.
COLOURS = np.array([one for one in product(range(0, 241, 60), repeat=3) if sum(one) == 360][:17], np.float32)
IMAGENET, UNIT, PIXELS = normalisations()[0], normalisations()[2], normalisations()[3]
BGR = replace(IMAGENET, mean=IMAGENET.mean[::-1], std=IMAGENET.std[::-1], to_rgb=False)
PEOPLE = 16


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """People of 17 coloured spots: the options of `new_study` that name them."""
    folder = tmp_path_factory.mktemp("people")
    return {
        f"{prefix}{key}": value
        for prefix, first in (("", 1), ("train_", 101))
        for key, value in draw_people(folder / f"{prefix}set", first).items()
    }


def draw_people(folder: Path, first: int) -> dict[str, str]:
    folder.mkdir()
    generator = np.random.default_rng(first)
    content: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": [{"id": 1}]}
    for identifier in range(first, first + PEOPLE):
        pixels = np.zeros((160, 140, 3), np.uint8)
        cells = generator.permutation([(x, y) for x in range(4) for y in range(5)])[: len(COLOURS)]
        places = 20 + 26 * cells + generator.integers(-4, 5, cells.shape)
        for place, colour in zip(places.tolist(), COLOURS.tolist(), strict=True):
            cv2.circle(pixels, place, 5, colour[::-1], cv2.FILLED)
        name = f"{identifier}.png"
        cv2.imwrite(str(folder / name), pixels)
        content["images"].append({"id": identifier, "file_name": name, "width": 140, "height": 160})
        keypoints = np.column_stack([places, np.full(len(places), 2)]).ravel().tolist()
        person = {"id": identifier, "image_id": identifier, "category_id": 1, "iscrowd": 0, "num_keypoints": 17}
        content["annotations"].append(person | {"bbox": [10, 10, 110, 135], "area": 9000.0, "keypoints": keypoints})
    annotations = folder / "annotations.json"
    annotations.write_text(json.dumps(content))
    return {"images": str(folder), "annotations": str(annotations)}


def weights(normalisation: Normalisation) -> dict[str, np.ndarray[Any, Any]]:
    """Two 1x1 convolutions, with absolute values between: how near a pixel is to each colour, 1 to less than 0."""
    colours = COLOURS if normalisation.to_rgb else COLOURS[:, ::-1]
    first = np.tile(np.diag(normalisation.std), (len(COLOURS), 1))
    second = -np.kron(np.eye(len(COLOURS)), np.ones(3)) / 60
    return {
        "first": first[..., np.newaxis, np.newaxis].astype(np.float32),
        "first_bias": (np.tile(normalisation.mean, len(COLOURS)) - colours.ravel()).astype(np.float32),
        "second": second[..., np.newaxis, np.newaxis].astype(np.float32),
        "second_bias": np.ones(len(COLOURS), np.float32),
    }


def write_onnx(path: Path, normalisation: Normalisation = IMAGENET, *, simcc: bool = False) -> str:
    nodes = [
        helper.make_node("Conv", ["image", "first", "first_bias"], ["a"]),
        helper.make_node("Abs", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second", "second_bias"], ["c"]),
        helper.make_node("Relu", ["c"], ["near"]),
    ]
    outputs = ["along_x", "along_y"] if simcc else ["heatmaps"]
    if simcc:
        nodes += [
            helper.make_node("ReduceMax", ["near"], [name], axes=[axis], keepdims=0)
            for name, axis in zip(outputs, (2, 3), strict=True)
        ]
    else:
        pool = {"kernel_shape": [5, 5], "strides": [STRIDE, STRIDE], "pads": [2, 2, 2, 2], "count_include_pad": 1}
        nodes.append(helper.make_node("AveragePool", ["near"], outputs, **pool))
    graph = helper.make_graph(
        nodes,
        "spots",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIZE[1], SIZE[0]])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights(normalisation).items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return str(path)


def write_ncnn(folder: Path, normalisation: Normalisation, **size: str) -> str:
    found = weights(normalisation)
    builder = (
        Builder()
        .add("Input", "image", "", "image", {int(key[1:]): value for key, value in size.items()})
        .convolution("first", "image", "a", found["first"], found["first_bias"])
        .add("UnaryOp", "absolute", "a", "b", {0: 0})
        .convolution("second", "b", "c", found["second"], found["second_bias"], relu=True)
        .add("Pooling", "pool", "c", "heatmaps", {0: 1, 1: 5, 2: STRIDE, 3: 2, 5: 1, 6: 1})
    )
    return str(builder.write(folder, "spots")[0])


def made(network: str, dataset: dict[str, Any], folder: Path, **options: Any) -> tuple[str, Any]:
    """Return what is said of a network, and the keys of its model in the file; or its name, if that is all."""
    target = folder / "mine.yaml"
    said = new_study(Wanted(network, **dataset, people=PEOPLE, out=target, **options), ROOT)
    content = yaml.safe_load(target.read_text())
    study: dict[str, Any] = content["studies"][content["study"]]
    (model,) = study["models"].values()
    return said, model


@pytest.mark.parametrize("normalisation", [IMAGENET, BGR, UNIT, PIXELS], ids=["ImageNet", "BGR", "-1 to 1", "0 to 255"])
def test_the_normalisation_is_found(normalisation: Normalisation, dataset: dict[str, Any], tmp_path: Path) -> None:
    _, model = made(write_onnx(tmp_path / "spots.onnx", normalisation), dataset, tmp_path)
    assert (model["mean"], model["std"]) == ([*normalisation.mean], [*normalisation.std])
    assert model.get("to_rgb", True) == normalisation.to_rgb


def test_a_study_is_written_and_said(dataset: dict[str, Any], tmp_path: Path) -> None:
    network = write_onnx(tmp_path / "spots-64x96.onnx")
    said, model = made(network, dataset, tmp_path)
    text = (tmp_path / "mine.yaml").read_text()
    study = yaml.safe_load(text)["studies"]["spots_64x96"]
    assert study["dataset"] == {
        split: {"images": dataset[f"{prefix}images"], "annotations": dataset[f"{prefix}annotations"]}
        for split, prefix in (("train", "train_"), ("val", ""))
    }
    assert study["variants"] == ["onnxruntime", "ncnn", "ncnn-int8"]
    assert model["source"] == "onnx"
    assert model["onnx"] == network
    assert model["input_size"] == [64, 96]
    assert model["codec"] == {"type": "MSRAHeatmap", "input_size": [64, 96], "heatmap_size": [16, 24], "sigma": 2}
    for words in ("3x96x64 (channels, height, width)", "17x24x16", "stride is 4", "<- taken"):
        assert words in said
        assert words in text
    assert f"snakemake -c all --configfile {tmp_path / 'mine.yaml'}" in said


def test_the_same_file_anew(dataset: dict[str, Any], tmp_path: Path) -> None:
    network, target = write_onnx(tmp_path / "spots.onnx"), tmp_path / "mine.yaml"
    texts = []
    for threads in (1, 2):
        made(network, dataset, tmp_path, threads=threads)
        texts.append(target.read_text())
        target.unlink()
    assert texts[0] == texts[1]


def test_dark_is_taken_where_it_is_asked_for(dataset: dict[str, Any], tmp_path: Path) -> None:
    said, model = made(write_onnx(tmp_path / "spots.onnx"), dataset, tmp_path, dark=True)
    assert model["codec"]["unbiased"] is True
    assert "--dark" not in said


def test_simcc_and_its_split_ratio_are_found(dataset: dict[str, Any], tmp_path: Path) -> None:
    _, model = made(write_onnx(tmp_path / "spots.onnx", UNIT, simcc=True), dataset, tmp_path)
    assert model["codec"] == {"type": "SimCCLabel", "input_size": [64, 96], "simcc_split_ratio": 1.0}
    assert model["mean"] == [127.5, 127.5, 127.5]


def test_ncnn_network_that_says_its_size(dataset: dict[str, Any], tmp_path: Path) -> None:
    _, model = made(write_ncnn(tmp_path, BGR, _0="64", _1="96", _2="3"), dataset, tmp_path)
    assert (model["source"], model["input_size"], model["to_rgb"]) == ("ncnn", [64, 96], False)
    assert model["bin"] == str(tmp_path / "spots.bin")
    assert model["codec"]["type"] == "MSRAHeatmap"


def test_ncnn_network_that_does_not(dataset: dict[str, Any], tmp_path: Path) -> None:
    network = write_ncnn(tmp_path, IMAGENET)
    with pytest.raises(InputError, match=r"spots.param: does not say the size of its input. Give --input-size"):
        made(network, dataset, tmp_path)
    _, model = made(network, dataset, tmp_path, input_size=[64, 96], mean=[*IMAGENET.mean], std=[*IMAGENET.std])
    assert model["input_size"] == [64, 96]


def test_ncnn_network_of_another_blob(dataset: dict[str, Any], tmp_path: Path) -> None:
    network = write_ncnn(tmp_path, IMAGENET, _0="64", _1="96", _2="3")
    with pytest.raises(InputError, match=r"has no blob 'maps', which --decoded names"):
        made(network, dataset, tmp_path, decoded=["maps"])
    with pytest.raises(InputError, match=r"maps\.bin: no such file.*--bin"):
        made(network, dataset, tmp_path, bin=tmp_path / "maps.bin")


def test_nothing_fits(dataset: dict[str, Any], tmp_path: Path) -> None:
    strange = Normalisation("strange", (10.0, 200.0, 30.0), (20.0, 150.0, 5.0))
    network = write_onnx(tmp_path / "spots.onnx", strange)
    with pytest.raises(InputError, match=r"none of the usual normalisations .* give --mean and --std"):
        made(network, dataset, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["spots.onnx"]
    _, model = made(network, dataset, tmp_path, mean=[*strange.mean], std=[*strange.std])
    assert model["mean"] == [*strange.mean]


def test_normalisations_too_close_to_tell(dataset: dict[str, Any], tmp_path: Path) -> None:
    opened = open_onnx(Path(write_onnx(tmp_path / "spots.onnx")))
    people = LabelledPeople.choose(load_annotations(Path(dataset["annotations"])), PEOPLE, seed=0)
    trial = Trial(opened.network, opened.spec, people, Path(dataset["images"]), threads=1)
    twin = replace(IMAGENET, name="twin")
    possible = readings(opened.output_shapes, SIZE, "spots")[:1]
    outcome = try_all(trial, [PIXELS, IMAGENET, twin], possible)
    assert outcome.chosen.normalisation == IMAGENET
    assert [one.normalisation for one in outcome.close] == [twin]


def test_without_training_people_it_says_what_to_fill_in(dataset: dict[str, Any], tmp_path: Path) -> None:
    given = {key: value for key, value in dataset.items() if not key.startswith("train")}
    said, _ = made(write_onnx(tmp_path / "spots.onnx"), given, tmp_path, mean=[*IMAGENET.mean], std=[*IMAGENET.std])
    assert "To fill in: INT8 is calibrated on people of dataset.train" in said
    assert "# To fill in" in (tmp_path / "mine.yaml").read_text()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "row": ({"variants": ["nccn"]}, "no variant 'nccn'; did you mean 'ncnn'"),
    "row of another runtime": ({"variants": ["pytorch"]}, "runs in PyTorch, but model"),
    "folder": ({"train_images": "nowhere"}, "dataset.train.images: nowhere: no such folder"),
    "name": ({"name": "demo"}, "a study 'demo' is in the workflow's own config.yaml already"),
    "half a normalisation": ({"std": None}, "--mean and --std belong together"),
    "another size": ({"input_size": [96, 64]}, "takes crops of .64, 96."),
    "annotations of nothing": ({"train_annotations": None}, "give --train-annotations"),
}


@pytest.mark.parametrize("case", WRONG)
def test_nothing_is_written_of_what_is_wrong(case: str, dataset: dict[str, Any], tmp_path: Path) -> None:
    options, message = WRONG[case]
    known = {"mean": [*IMAGENET.mean], "std": [*IMAGENET.std]}
    wanted = Wanted(write_onnx(tmp_path / "spots.onnx"), **dataset, people=4, out=tmp_path / "mine.yaml")
    with pytest.raises(InputError, match=message):
        new_study(replace(wanted, **known | options), ROOT)
    assert not (tmp_path / "mine.yaml").exists()


def test_a_file_that_is_there_is_not_touched(dataset: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("study: mine\n")
    with pytest.raises(InputError, match=r"mine.yaml: is there already"):
        made(write_onnx(tmp_path / "spots.onnx"), dataset, tmp_path)
    assert (tmp_path / "mine.yaml").read_text() == "study: mine\n"


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ([1, 96, 64, 3], r"input 'image' is 1x96x64x3, with the channels last \(NHWC\)"),
        ([1, 1, 96, 64], r"input 'image' is 1x1x96x64, of 1 channels"),
        ([1, 3, None, None], r"Export the network for a fixed 1 x 3 x height x width"),
    ],
    ids=["NHWC", "grey", "open size"],
)
def test_inputs_that_are_refused(shape: list[int | None], message: str, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["image"], ["out"])],
        "relu",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
    )
    path = tmp_path / "relu.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    with pytest.raises(InputError, match=message):
        open_onnx(path)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(17, 24, 16), (17, 24, 16)], "2 sets of heatmaps"),
        ([(24, 16, 17)], "channels last"),
        ([(21, 24, 16)], "21 heatmaps .* coco .17 keypoints., make 17, or 51 with offsets"),
        ([(17, 16, 24)], "another aspect ratio"),
        ([(17, 2)], "coordinates"),
        ([(1, 17, 3)], "coordinates"),
        ([(56, 8400)], "YOLO-pose"),
        ([(17, 192), (17, 128)], "along y first"),
        ([(17, 128), (17, 128)], "another aspect ratio"),
        ([(21, 128), (21, 192)], "as many rows"),
        ([(17,)], "is not read"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value),
)
def test_outputs_that_are_refused(shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        readings(shapes, SIZE, "mine.onnx")


def test_heatmaps_with_offsets_are_udps() -> None:
    (reading,) = readings([(51, 24, 16)], SIZE, "mine.onnx")
    assert (reading.codec["heatmap_type"], reading.use_udp, reading.flip_mode) == ("combined", True, "udp_combined")


def test_network_of_mmpose(dataset: dict[str, Any], tmp_path: Path) -> None:
    name = "td-hm_hourglass52_8xb32-210e_coco-256x256"
    address = "https://download.openmmlab.com/hourglass52_coco_256x256-4ec713ba_20200709.pth"
    _, model = made(name, dataset, tmp_path, checkpoint=address)
    assert model == {"source": "mmpose", "config": name, "checkpoint": address}
    (tmp_path / "mine.yaml").unlink()
    if named_model(name):
        assert made(name, dataset, tmp_path)[1] == name
    else:
        with pytest.raises(InputError, match=r"give the path or address of its weights by --checkpoint"):
            made(name, dataset, tmp_path)


def drawn_people(folder: Path, kind: Kind) -> dict[str, Any]:
    """Draw a few, and return the options of `new_study` that name them."""
    write_dataset(folder, {"train": 1, "val": 12}, seed=0, processes=1, kind=kind)
    return {
        f"{prefix}{key}": str(folder / path)
        for prefix, split in (("", "val"), ("train_", "train"))
        for key, path in (("images", split), ("annotations", f"annotations/person_keypoints_{split}.json"))
    }


def exported(name: str, side: int, folder: Path) -> str:
    """Return the ONNX file of a network that the project ships, for square crops."""
    files = [ROOT / "models" / name / file for file in ("config.py", "checkpoint.pth")]
    spec = ModelSpec(
        name=name,
        input_size=(side, side),
        mean=IMAGENET.mean,
        std=IMAGENET.std,
        to_rgb=True,
        padding=1.25,
        use_udp=False,
        codec={},
        flip_mode="heatmap",
        shift_heatmap=True,
        input_name="input",
        output_names=("output",),
    )
    return str(export_onnx(Model(files[0], files[1], spec), folder / "network.onnx"))


def test_the_demos_network_on_drawn_people(tmp_path: Path) -> None:
    _, model = made(exported("hourglass_demo", 128, tmp_path), drawn_people(tmp_path / "drawn", PERSON), tmp_path)
    assert (model["input_size"], model["mean"], model.get("to_rgb", True)) == ([128, 128], [*IMAGENET.mean], True)
    assert model["codec"] == {"type": "MSRAHeatmap", "input_size": [128, 128], "heatmap_size": [32, 32], "sigma": 2}


def test_a_network_of_other_keypoints_needs_their_name(tmp_path: Path) -> None:
    network, hands = exported("hand_demo", 96, tmp_path), drawn_people(tmp_path / "drawn", HAND)
    with pytest.raises(InputError, match=r"have 21 keypoints.*--keypoints.*coco_wholebody_hand.* have as many"):
        made(network, hands, tmp_path)
    _, model = made(network, hands, tmp_path, keypoints="coco_wholebody_hand")
    assert (model["mean"], model["codec"]["heatmap_size"]) == ([*IMAGENET.mean], [24, 24])
    study = yaml.safe_load((tmp_path / "mine.yaml").read_text())["studies"]["network"]
    assert study["dataset"]["keypoints"] == "coco_wholebody_hand"


def test_people_of_other_keypoints_to_calibrate_on_must_be_named(tmp_path: Path) -> None:
    hands = {key: value for key, value in drawn_people(tmp_path / "drawn", HAND).items() if "train" not in key}
    with pytest.raises(InputError, match="Give it by --train-images and --train-annotations"):
        made(exported("hand_demo", 96, tmp_path), hands, tmp_path, keypoints="coco_wholebody_hand")


def test_network_of_mmpose_of_other_keypoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"out_channels is 98"):
        made(
            "td-hm_hrnetv2-w18_8xb64-60e_wflw-256x256",
            drawn_people(tmp_path / "drawn", HAND),
            tmp_path,
            keypoints="coco_wholebody_hand",
        )


def test_without_sigmas_networks_are_tried_by_nme(tmp_path: Path) -> None:
    said, model = made(
        exported("hand_demo", 96, tmp_path), drawn_people(tmp_path / "drawn", HAND), tmp_path, keypoints="onehand10k"
    )
    assert "Mean 1 - NME of" in said
    assert model["mean"] == [*IMAGENET.mean]
