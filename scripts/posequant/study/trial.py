"""Which normalisation and codec fit a network: all likely ones, tried on some annotated people."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from posequant.base.keypoints import KeypointSet
from posequant.base.model_spec import ModelSpec
from posequant.data.crops import Cropper, crops_of_images
from posequant.data.dataset import CHUNK, Annotations, Instances, ground_truth_instances, say_notices
from posequant.evaluate.decode import Decoder
from posequant.evaluate.oks import similarity
from posequant.networks.base import Network, join_rows
from posequant.study.candidates import Normalisation, Reading

Floats = NDArray[np.float32]
Scores = NDArray[np.float64]

# Two differ where the mean of the differences, person by person, is so many standard errors from zero.
_SURE = 2.0


@dataclass(frozen=True)
class Attempt:
    """A way to feed and read the network, and how well it does.

    Attributes:
        normalisation: of the crops.
        reading: of the outputs.
        oks: of each person, with the labels in the place of the truth, float64 (N,).
    """

    normalisation: Normalisation
    reading: Reading
    oks: Scores

    @property
    def mean_oks(self) -> float:
        """The mean of OKS over people."""
        return float(self.oks.mean())

    def fits(self, normalisation: Normalisation, reading: str | None) -> bool:
        """Return whether it has that normalisation, and a reading of that name."""
        return self.normalisation == normalisation and self.reading.name == reading


@dataclass(frozen=True)
class Outcome:
    """What came of all attempts.

    Attributes:
        attempts: all, the best first.
        chosen: the best, or its plain reading.
        close: those that may be as good for all that was seen, of other normalisations or codecs.
    """

    attempts: list[Attempt]
    chosen: Attempt
    close: list[Attempt]


def behind(best: Attempt, other: Attempt) -> tuple[float, float]:
    """Return how far an attempt's mean OKS is behind another's, and the standard error of that."""
    difference = best.oks - other.oks
    count = len(difference)
    return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(count)) if count > 1 else 0.0


class Trial:
    """A network and some annotated people to try it on."""

    def __init__(
        self, network: Network, spec: ModelSpec, people: "LabelledPeople", images: Path, *, threads: int
    ) -> None:
        """Take the network as `spec` describes it; its normalisation and codec do not count."""
        self._network, self._spec, self._people, self._images = network, spec, people, images
        self._threads = threads

    def attempt(self, normalisation: Normalisation, readings: Sequence[Reading]) -> list[Attempt]:
        """Return how well each of some readings does.

        Raises:
            InputError: an image is missing or damaged; a codec cannot read the outputs.
        """
        outputs: dict[bool, list[Floats]] = {}
        attempts = []
        for reading in readings:
            spec = described(self._spec, normalisation, reading)
            cropper = Cropper(spec)
            people = self._people.instances
            if reading.use_udp not in outputs:
                outputs[reading.use_udp] = self._forward(cropper, people)
            # What overflows reads as nothing.
            found = [np.nan_to_num(output) for output in outputs[reading.use_udp]]
            keypoints, _ = Decoder(spec).decode(found, *cropper.frame(people.bboxes))
            attempts.append(Attempt(normalisation, reading, self._people.oks(keypoints)))
        return attempts

    def _forward(self, cropper: Cropper, people: Instances) -> list[Floats]:
        crops = crops_of_images(cropper, people, self._images)
        chunks = np.array_split(np.arange(len(people)), -(-len(people) // CHUNK))

        def outputs(chunk: NDArray[np.int64]) -> list[Floats]:
            return self._network.forward(cropper.normalise(crops(chunk)))

        with ThreadPoolExecutor(self._threads) as pool:
            return join_rows(list(pool.map(outputs, chunks)))


def described(spec: ModelSpec, normalisation: Normalisation, reading: Reading) -> ModelSpec:
    """Return the description of a network with a normalisation and a codec."""
    return replace(
        spec,
        mean=normalisation.mean,
        std=normalisation.std,
        to_rgb=normalisation.to_rgb,
        use_udp=reading.use_udp,
        codec=dict(reading.codec),
        flip_mode=reading.flip_mode,
    )


@dataclass(frozen=True)
class LabelledPeople:
    """N annotated people, in a random order.

    Attributes:
        instances: their boxes and images.
        keypoints: as annotated, float64 (N, K, 2), in pixels of the image.
        labelled: which of them are, bool (N, K).
        areas: of the people, in square pixels, float64 (N,).
        of: what is annotated.
    """

    instances: Instances
    keypoints: Scores
    labelled: NDArray[np.bool_]
    areas: Scores
    of: KeypointSet

    @classmethod
    def choose(cls, annotations: Annotations, count: int, seed: int) -> "LabelledPeople":
        """Return `count` of the annotated people, or all if there are fewer; `InputError` if there are none."""
        everyone = ground_truth_instances(annotations)
        say_notices(everyone)
        order = np.random.default_rng(seed).permutation(len(everyone))[:count]
        instances = everyone.select(order)
        entries = [annotations.coco.anns[int(identifier)] for identifier in instances.ids]
        triplets = np.array([entry["keypoints"] for entry in entries], np.float64).reshape(len(order), -1, 3)
        areas = np.array([entry["area"] for entry in entries], np.float64)
        return cls(instances, triplets[..., :2], triplets[..., 2] > 0, areas, annotations.keypoints)

    def oks(self, keypoints: Floats) -> Scores:
        """Return the OKS of poses (N, K, 2), float64 (N,); without sigmas 1 - NME, as `similarity` has it."""
        agreement = similarity(keypoints, self.keypoints, self.areas, self.of.sigmas) * self.labelled
        oks: Scores = agreement.sum(axis=1) / np.maximum(self.labelled.sum(axis=1), 1)
        return oks


def try_all(
    trial: Trial, normalisations: Sequence[Normalisation], readings: Sequence[Reading], *, dark: bool = False
) -> Outcome:
    """Try normalisations with the first reading, then those that may be the best with the others.

    Two are told apart where one is behind the other by more than two standard errors of the difference, person by
    person. A reading that refines another is in the place of the plain one where they are compared, so that the others,
    which refine as well, have no advantage by that; the plain one is chosen all the same.

    Args:
        trial: the network and the people.
        normalisations: the most usual first; of equals, it is chosen.
        readings: the same.
        dark: whether a reading is chosen that refines another, if it is better.
    """
    first = [trial.attempt(normalisation, readings[:1])[0] for normalisation in normalisations]
    best = max(first, key=lambda one: one.mean_oks)
    others = [trial.attempt(one.normalisation, readings[1:]) for one in first if _is_close(best, one)]
    tried = [*first, *(attempt for attempts in others for attempt in attempts)]
    best = max(tried, key=lambda one: one.mean_oks)
    chosen = best
    if best.reading.plain and not dark:
        chosen = next(one for one in tried if one.fits(best.normalisation, best.reading.plain))
    close = [
        one
        for one in tried
        if _is_close(best, one)
        and not any(one.fits(best.normalisation, name) for name in (best.reading.name, best.reading.plain))
    ]
    return Outcome(sorted(tried, key=lambda one: -one.mean_oks), chosen, close)


def _is_close(best: Attempt, other: Attempt) -> bool:
    distance, error = behind(best, other)
    return distance <= _SURE * error
