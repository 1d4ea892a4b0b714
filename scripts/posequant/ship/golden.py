"""A drawn person or hand, and what each step from the image to the keypoints gives: to compare an app with.

It is drawn, whatever a network was trained on, so that no photograph and nobody's likeness is in a package.
"""

import io
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from posequant.base.errors import InputError
from posequant.base.model_spec import ModelSpec
from posequant.data.crops import Cropper
from posequant.demo.hand import HAND
from posequant.demo.person import PERSON
from posequant.demo.scenes import draw_scene
from posequant.evaluate.decode import Decoder
from posequant.networks.base import Network

Floats = NDArray[np.float32]

# One person alone, all keypoints of whom are seen, with an arm raised; and one hand alone, likewise.
_SCENE = (1, "val", 8)
# What a network's output must agree to, by precision. On one x86-64 processor, kernels for others and with other
# algorithms agree to 124 dB in fp32, 48 in bf16 and 46 in INT8 (measured on the demo's network, ncnn and OpenVINO): one
# value that is rounded the other way moves all that follows. With its channels swapped, it is at 13 dB.
_MIN_SQNR_DB = {"fp32": 60, "fp16": 35, "bf16": 30, "int8": 30}


@dataclass(frozen=True)
class Golden:
    """A person and the pose that a network finds.

    Attributes:
        image: uint8 (height, width, 3) in BGR.
        box: left, top, width and height of the person, in pixels.
        crop: what the network sees of the person before normalisation, uint8 (H, W, 3) in BGR.
        heatmaps: what it makes of that, float32 (K, h, w).
        keypoints: x and y in pixels of the image and the score of each keypoint, float32 (K, 3).
    """

    image: NDArray[np.uint8]
    box: tuple[float, float, float, float]
    crop: NDArray[np.uint8]
    heatmaps: Floats
    keypoints: Floats

    def described(self, precision: str) -> dict[str, Any]:
        """Return what `model.json` says of them: the files, and how far others may be from them."""
        return {
            "image": "golden/image.png",
            "box": list(self.box),
            "crop": "golden/crop.png",
            "heatmaps": "golden/heatmaps.npy",
            "keypoints": "golden/keypoints.npy",
            "max_levels": 2,
            "max_moved": 0.01,
            "min_sqnr_db": _MIN_SQNR_DB[precision],
        }

    def files(self, *, portable: bool) -> dict[str, bytes]:
        """Return the content of the files; `portable` adds the images as PPM, which need no library."""
        images = {"image": self.image, "crop": self.crop}
        return {
            **{f"golden/{name}.png": _encoded(image, ".png") for name, image in images.items()},
            **({f"golden/{name}.ppm": _encoded(image, ".ppm") for name, image in images.items()} if portable else {}),
            "golden/heatmaps.npy": _array(self.heatmaps),
            "golden/keypoints.npy": _array(self.keypoints),
        }


def find_golden(network: Network, spec: ModelSpec) -> Golden:
    """Draw a hand for a network with the keypoints of one, a person for any other, and find the pose.

    Raises:
        InputError: the network's output is not finite, or is 0 everywhere.
    """
    drawn = HAND if len(spec.keypoints) == len(HAND.keypoints) else PERSON
    scene = draw_scene(*_SCENE, drawn)
    left, top, width, height = scene.annotations[0]["bbox"]
    bbox = np.array([left, top, left + width, top + height], np.float32)
    cropper = Cropper(spec)
    crop, center, extent = cropper.cut(scene.image, bbox)
    outputs = network.forward(cropper.normalise(crop[np.newaxis]))
    if not np.isfinite(outputs[0]).all() or not outputs[0].any():
        raise InputError(
            f"model {spec.name}: the network's output for a drawn {drawn.name} is 0 or not finite. Check it."
        )
    (keypoints,), (scores,) = Decoder(spec).decode(outputs, center[np.newaxis], extent[np.newaxis])
    return Golden(
        image=scene.image,
        box=(left, top, width, height),
        crop=crop,
        heatmaps=outputs[0][0],
        keypoints=np.column_stack([keypoints, scores]).astype(np.float32),
    )


def _encoded(image: NDArray[np.uint8], ending: str) -> bytes:
    done, content = cv2.imencode(ending, image)
    assert done, ending
    return content.tobytes()


def _array(values: Floats) -> bytes:
    stream = io.BytesIO()
    npy.write_array(stream, np.ascontiguousarray(values), version=(1, 0), allow_pickle=False)
    return stream.getvalue()
