"""How far the outputs of a network are from those of the float network, as signals and as poses."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posequant.base.model_spec import ModelSpec
from posequant.base.signal import Powers
from posequant.evaluate.decode import Decoder
from posequant.evaluate.keypoint_metrics import KEYPOINT_SCORE_THRESHOLD
from posequant.evaluate.oks import AREA_OF_BOX, mean_oks

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Effect:
    """What becomes of the outputs of a network.

    Attributes:
        sqnr_db: signal-to-quantization-noise ratio in dB, over all outputs and crops; None where they are equal.
        noise: noise power by signal power, of which `sqnr_db` is the logarithm.
        oks_loss: 1 - the mean OKS of the poses with the float network's in the place of the truth; None where the
            float network is sure of no keypoint.
    """

    sqnr_db: float | None
    noise: float
    oks_loss: float | None


class Yardstick:
    """The outputs of the float network for N crops, by which others are measured.

    There is no image here: keypoints are in pixels of the crop. The box is the crop without its padding, and a person's
    area 0.53 times that of the box, as mmpose takes it where it is not annotated.

    Attributes:
        keypoints: the float network's, float32 (N, 17, 2).
        scores: theirs, float32 (N, 17).
    """

    def __init__(self, spec: ModelSpec, outputs: Sequence[Floats]) -> None:
        """Decode the float network's outputs, one array of N rows each; `InputError` if the codec cannot."""
        self._decoder = Decoder(spec)
        self._outputs = outputs
        count = len(outputs[0])
        self._scales = np.tile(np.array(spec.input_size, np.float32), (count, 1))
        self._areas = np.full(count, AREA_OF_BOX * math.prod(spec.input_size) / spec.padding**2)
        self.keypoints, self.scores = self.decode(outputs)
        # mmpose's threshold for a keypoint to count in a score.
        self._sure = self.scores > KEYPOINT_SCORE_THRESHOLD

    def measure(self, outputs: Iterable[Iterable[Floats]]) -> Effect:
        """Measure other outputs for the same crops: for each output N arrays of its size."""
        arrays = [
            np.stack(list(values)).reshape(reference.shape)
            for values, reference in zip(outputs, self._outputs, strict=True)
        ]
        return self.compare(arrays, self.decode(arrays)[0])

    def compare(self, outputs: Sequence[Floats], keypoints: Floats) -> Effect:
        """Measure other outputs, one array of N rows each, of which `decode` made the keypoints."""
        powers = Powers.total([Powers.of(*pair) for pair in zip(self._outputs, outputs, strict=True)])
        oks = mean_oks(keypoints, self.keypoints, self._areas, self._sure)
        return Effect(powers.sqnr_db, powers.ratio, None if oks is None else 1 - oks)

    def decode(self, outputs: Sequence[Floats]) -> tuple[Floats, Floats]:
        """Return keypoints in pixels of the crop, float32 (N, 17, 2), and their scores, float32 (N, 17)."""
        return self._decoder.decode(outputs, self._scales * np.float32(0.5), self._scales)
