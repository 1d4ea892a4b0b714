"""A small drawn dataset and small random networks, and mmpose's own way through them."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from posequant.base.files import sha256
from posequant.base.model_spec import ModelSpec
from posequant.base.openmmlab import build_model, load_config, make_importable

INPUT_SIZE = (64, 96)
HEATMAP_SIZE = (16, 24)
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)

CODECS: dict[str, dict[str, Any]] = {
    "msra": {"type": "MSRAHeatmap", "input_size": INPUT_SIZE, "heatmap_size": HEATMAP_SIZE, "sigma": 2},
    "dark": {
        "type": "MSRAHeatmap",
        "input_size": INPUT_SIZE,
        "heatmap_size": HEATMAP_SIZE,
        "sigma": 2,
        "unbiased": True,
        "blur_kernel_size": 11,
    },
    "udp": {"type": "UDPHeatmap", "input_size": INPUT_SIZE, "heatmap_size": HEATMAP_SIZE, "sigma": 2},
    "udp-combined": {
        "type": "UDPHeatmap",
        "input_size": INPUT_SIZE,
        "heatmap_size": HEATMAP_SIZE,
        "heatmap_type": "combined",
    },
    "megvii": {"type": "MegviiHeatmap", "input_size": INPUT_SIZE, "heatmap_size": HEATMAP_SIZE, "kernel_size": 5},
    "simcc": {"type": "SimCCLabel", "input_size": INPUT_SIZE, "sigma": 6.0, "simcc_split_ratio": 2.0},
}


class Dataset(NamedTuple):
    """Where a drawn dataset lies."""

    images: Path
    annotations: Path
    detections: Path


class Model(NamedTuple):
    """A random network: its mmpose config and checkpoint, and its description."""

    config: Path
    checkpoint: Path
    spec: ModelSpec


def identity_of(dataset: "Dataset", people: int, **changes: Any) -> dict[str, Any]:
    """Return an identity of predictions for so many people of a dataset, in boxes of the annotations."""
    return {
        "model": "m",
        "variant": "v",
        "backend": "onnxruntime",
        "precision": "fp32",
        "protocol": {"boxes": "ground-truth", "flip_test": False},
        "instances": people,
        "sha256": {
            "model": "0",
            "artifact": {"model.onnx": "0"},
            "annotations": sha256(dataset.annotations),
            "detections": None,
        },
        "versions": {"numpy": "2"},
        **changes,
    }


def draw_dataset(folder: Path, seed: int = 0, first_image: int = 1, count: int = 6) -> Dataset:
    """Draw images with people in COCO format, and detector boxes around them, edge cases included."""
    generator = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    images: list[dict[str, Any]] = []
    people: list[dict[str, Any]] = []
    detections = []
    for image_id in range(first_image, first_image + count):
        width, height = (int(size) for size in generator.integers(180, 260, 2))
        name = f"{image_id:012d}.jpg"
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        cv2.imwrite(str(folder / "images" / name), _scene(generator, width, height))
        for _ in range(int(generator.integers(2, 5))):
            people.append(_person(generator, images[-1], identifier=1000 * first_image + len(people)))
    _spoil(people, images)
    for person in people:
        jitter = generator.normal(0, 3, 4)
        detections.append(
            {
                "image_id": person["image_id"],
                "category_id": int(generator.choice([1, 1, 1, 2])),
                "bbox": [round(float(value), 3) for value in np.maximum(person["bbox"] + jitter, 1)],
                "score": round(float(generator.uniform(0, 1)), 4),
            }
        )
    order = generator.permutation(len(detections))
    content = {"images": images, "annotations": people, "categories": [{"id": 1, "name": "person"}]}
    dataset = Dataset(folder / "images", folder / "annotations.json", folder / "detections.json")
    dataset.annotations.write_text(json.dumps(content))
    dataset.detections.write_text(json.dumps([detections[place] for place in order]))
    return dataset


def make_model(folder: Path, codec: str) -> Model:
    """Write the config and checkpoint of a small network with random weights that decodes by `CODECS[codec]`."""
    make_importable()
    import torch
    from mmengine import Config

    use_udp = codec.startswith("udp")
    flip_mode = "udp_combined" if codec == "udp-combined" else "heatmap"
    pipeline = [
        {"type": "LoadImage"},
        {"type": "GetBBoxCenterScale"},
        {"type": "TopdownAffine", "input_size": INPUT_SIZE, "use_udp": use_udp},
        {"type": "PackPoseInputs"},
    ]
    # The second stage: 8 channels at a quarter of the input's size.
    backbone = {"type": "MobileNetV2", "widen_factor": 0.25, "out_indices": (1,)}
    head: dict[str, Any] = {"in_channels": 8, "out_channels": 17, "deconv_out_channels": None}
    if codec == "simcc":
        head |= {"type": "SimCCHead", "input_size": INPUT_SIZE, "in_featuremap_size": HEATMAP_SIZE}
    elif codec == "udp-combined":
        head |= {"type": "HeatmapHead", "out_channels": 3 * 17}
    else:
        head |= {"type": "HeatmapHead"}
    config = Config(
        {
            "default_scope": "mmpose",
            "test_pipeline": pipeline,
            "test_dataloader": {"dataset": {"pipeline": pipeline}},
            "model": {
                "type": "TopdownPoseEstimator",
                "data_preprocessor": {
                    "type": "PoseDataPreprocessor",
                    "mean": list(MEAN),
                    "std": list(STD),
                    "bgr_to_rgb": True,
                },
                "backbone": backbone,
                "head": head | {"decoder": CODECS[codec]},
                "test_cfg": {"flip_test": False, "flip_mode": flip_mode, "shift_heatmap": not use_udp},
            },
        }
    )
    path = folder / f"{codec}.py"
    config.dump(path)
    model = build_model(load_config(path), None)
    generator = torch.Generator().manual_seed(1)
    for name, weights in model.state_dict().items():
        # mmpose's initial weights give heatmaps too flat to tell one pixel from another.
        if weights.is_floating_point() and ("final_layer" in name or "mlp_head" in name):
            weights.copy_(torch.randn(weights.shape, generator=generator) * 0.3)
    checkpoint = folder / f"{codec}.pth"
    torch.save({"state_dict": model.state_dict()}, checkpoint)
    spec = ModelSpec(
        name=codec,
        input_size=INPUT_SIZE,
        mean=MEAN,
        std=STD,
        to_rgb=True,
        padding=1.25,
        use_udp=use_udp,
        codec=CODECS[codec],
        flip_mode=flip_mode,
        shift_heatmap=not use_udp,
        input_name="input",
        output_names=("simcc_x", "simcc_y") if codec == "simcc" else ("output",),
    )
    return Model(path, checkpoint, spec)


def export_onnx(model: Model, path: Path) -> Path:
    """Write the network as ONNX, with the names that its description says."""
    import torch

    network: Any = build_model(load_config(model.config), model.checkpoint)
    network.forward = network._forward  # the raw output, without samples
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            network,
            (torch.zeros(1, *model.spec.input_shape),),
            path,
            input_names=[model.spec.input_name],
            output_names=list(model.spec.output_names),
            dynamo=False,
        )
    return path


def mmpose_dataset(dataset: Dataset, model: Model | None = None, detections: bool = False) -> Any:
    """Return mmpose's CocoDataset in test mode, with the test pipeline of `model`."""
    make_importable()
    from mmpose.datasets import CocoDataset

    return CocoDataset(
        ann_file=str(dataset.annotations),
        data_prefix={"img": f"{dataset.images}/"},
        bbox_file=str(dataset.detections) if detections else None,
        test_mode=True,
        pipeline=list(load_config(model.config)["test_pipeline"]) if model else [],
    )


def mmpose_predictions(model: Model, samples: Sequence[Any], flip_test: bool) -> list[Any]:
    """Return what the network's own `test_step` makes of samples from `mmpose_dataset`, as one batch."""
    import torch
    from mmengine.dataset import pseudo_collate

    network: Any = build_model(load_config(model.config), model.checkpoint)
    network.test_cfg["flip_test"] = flip_test
    with torch.no_grad():
        return list(network.test_step(pseudo_collate(list(samples))))


def _scene(generator: np.random.Generator, width: int, height: int) -> np.ndarray[Any, Any]:
    pixels = np.full((height, width, 3), generator.integers(0, 256, 3), np.uint8)
    for _ in range(30):
        start, end = generator.integers(0, min(width, height), (2, 2)).tolist()
        cv2.line(pixels, start, end, generator.integers(0, 256, 3).tolist(), int(generator.integers(1, 12)))
    return pixels


def _person(generator: np.random.Generator, image: dict[str, Any], identifier: int) -> dict[str, Any]:
    extent = generator.uniform(40, 170, 2)
    corner = generator.uniform(-20, 120, 2)  # some boxes cross the border
    positions = np.rint(np.clip(corner + extent * generator.uniform(0, 1, (17, 2)), 0, 179))
    visibility = generator.choice([0, 1, 2], 17, p=[0.2, 0.2, 0.6])
    positions[visibility == 0] = 0
    return {
        "id": identifier,
        "image_id": image["id"],
        "category_id": 1,
        "bbox": [round(float(value), 2) for value in (*corner, *extent)],
        "area": round(float(extent.prod() * 0.6), 2),
        "iscrowd": 0,
        "num_keypoints": int((visibility > 0).sum()),
        "keypoints": np.column_stack([positions, visibility]).astype(int).ravel().tolist(),
    }


def _spoil(people: list[dict[str, Any]], images: list[dict[str, Any]]) -> None:
    """Turn some people into what evaluation must leave out."""
    people[1]["iscrowd"] = 1
    people[4] |= {"num_keypoints": 0, "keypoints": [0] * 51}
    people[6]["bbox"] = [images[0]["width"] + 60.0, 10.0, 30.0, 30.0]
    people[8] |= {"num_keypoints": 17, "keypoints": [0, 0, 2] * 17}
