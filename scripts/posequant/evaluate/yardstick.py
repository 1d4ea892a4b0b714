"""How far the outputs of a network are from those of the float network, as signals and as poses."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posequant.base.model_spec import ModelSpec
from posequant.base.signal import Powers
from posequant.data.crop_files import People
from posequant.evaluate.decode import Decoder
from posequant.evaluate.oks import Shift, pose_shift

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

    @classmethod
    def of(cls, powers: Sequence[Powers], shift: Shift) -> "Effect":
        """Return that of outputs whose powers are given crop by crop, and of the poses read from them."""
        total, oks = Powers.total(powers), shift.mean_oks
        return cls(total.sqnr_db, total.ratio, None if oks is None else 1 - oks)


class Yardstick:
    """The outputs of the float network for the crops of N people, by which others are measured.

    Attributes:
        keypoints: the float network's, float32 (N, K, 2), in pixels of the image.
        scores: theirs, float32 (N, K).
    """

    def __init__(self, spec: ModelSpec, people: People, outputs: Sequence[Floats]) -> None:
        """Decode the float network's outputs, one array of N rows each; `InputError` if the codec cannot."""
        self._decoder, self._people, self._outputs = Decoder(spec), people, outputs
        self._sigmas = spec.keypoints.sigmas
        self.keypoints, self.scores = self.decode(outputs)

    def measure(self, outputs: Iterable[Iterable[Floats]]) -> Effect:
        """Measure other outputs for the same crops: for each output N arrays of its size."""
        arrays = [
            np.stack(list(values)).reshape(reference.shape)
            for values, reference in zip(outputs, self._outputs, strict=True)
        ]
        return Effect.of(self.powers(arrays), self.shift(self.decode(arrays)[0]))

    def decode(self, outputs: Sequence[Floats]) -> tuple[Floats, Floats]:
        """Return keypoints in pixels of the image, float32 (N, K, 2), and their scores, float32 (N, K)."""
        return self._decoder.decode(outputs, self._people.centers, self._people.scales)

    def powers(self, outputs: Sequence[Floats]) -> list[Powers]:
        """Return how far other outputs, one array of N rows each, are from the float network's, crop by crop."""
        of_outputs = [Powers.of_each(*pair) for pair in zip(self._outputs, outputs, strict=True)]
        return [Powers.total(of_crop) for of_crop in zip(*of_outputs, strict=True)]

    def shift(self, keypoints: Floats) -> Shift:
        """Return how far other poses, as `decode` returns them, are from the float network's."""
        return pose_shift(keypoints, self.keypoints, self.scores, self._people.bboxes, self._sigmas)
