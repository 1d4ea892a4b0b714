"""A small pose network by ncnn, its description, and people."""

import numpy as np
from tests.unit.ncnn_fixtures import Builder, Floats

from posequant.base.model_spec import ModelSpec
from posequant.data.crop_files import People
from posequant.ncnn_format.model import NcnnModel
from posequant.workflow.settings.recipe import Steps

SPEC = ModelSpec(
    name="small",
    input_size=(12, 16),
    mean=(0, 0, 0),
    std=(1, 1, 1),
    to_rgb=True,
    padding=1.25,
    use_udp=False,
    codec={"type": "MSRAHeatmap", "input_size": [12, 16], "heatmap_size": [12, 16], "sigma": 2},
    flip_mode="heatmap",
    shift_heatmap=False,
    input_name="input",
    output_names=("output",),
)

SCALES: Steps = [
    {"weights": {"bits": 8, "scales": "absmax"}},
    {"activations": {"method": "absmax"}},
]


def pose_network() -> NcnnModel:
    """A network from crops to 17 heatmaps: a convolution, a depthwise one and two more."""
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> Floats:
        values: Floats = rng.normal(size=shape, scale=np.prod(shape[1:]) ** -0.5).astype(np.float32)
        return values

    return (
        Builder()
        .add("Input", "in0", "", "in0")
        .convolution("conv_a", "in0", "a", weight(8, 3, 3, 3), weight(8), relu=True)
        .convolution("convdw_b", "a", "b", weight(8, 1, 3, 3), weight(8), group=8)
        .convolution("conv_c", "b", "c", weight(16, 8, 1, 1), weight(16), relu=True)
        .convolution("conv_d", "c", "out0", weight(17, 16, 1, 1), weight(17))
        .model()
    )


def draw_people(count: int, seed: int = 0) -> People:
    """People anywhere in images of their own, twice as large as their crops; a fifth of the keypoints not annotated."""
    rng = np.random.default_rng(seed)
    scales = np.tile(2 * np.array(SPEC.input_size, np.float32), (count, 1))
    centers = (50 + 100 * rng.random((count, 2))).astype(np.float32)
    # A person is narrower than the crop, as people are.
    halves = scales / SPEC.padding * np.array([0.35, 0.5], np.float32)
    visible = rng.random((count, 17)) > 0.2
    visible[:, 0] = True
    return People(
        image_ids=np.arange(count) + 100,
        bboxes=np.concatenate([centers - halves, centers + halves], axis=1),
        centers=centers,
        scales=scales,
        keypoints=centers[:, np.newaxis] + ((rng.random((count, 17, 2)) - 0.5) * scales[0]).astype(np.float32),
        visible=visible,
        areas=np.full(count, 240, np.float32),
    )
