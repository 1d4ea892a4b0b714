"""The paired bootstrap of two predictions, by the settings of a study.

Apart from the bootstrap itself, so that an edit of those settings reruns nothing that draws by settings of its own.
"""

import numpy as np
from numpy.typing import NDArray

from posequant.base.measures import PCK
from posequant.data.dataset import Annotations
from posequant.evaluate.bootstrap import Bootstrap, ImageDraws, bootstrap, draw_images, match
from posequant.evaluate.distances import Counts, Distances, Floats, distances_of
from posequant.evaluate.keypoint_metrics import coco_results
from posequant.evaluate.predictions import Predictions
from posequant.workflow.settings.certify import Sampling


def bootstrap_predictions(
    annotations: Annotations, reference: Predictions, candidate: Predictions, sampling: Sampling
) -> tuple[Bootstrap, ImageDraws]:
    """Compare two predictions of all people of the annotations; return the draws of their images, too.

    They are compared by COCO's statistics; where the keypoints have no sigmas, by distances to the annotated ones.

    Raises:
        InputError: as `distances_of`, without sigmas.
    """
    if annotations.keypoints.sigmas is None:
        return _by_distances(annotations, reference, candidate, sampling)
    results = [coco_results(one, annotations.category_of) for one in (reference, candidate)]
    matches = [[match(annotations, one, category) for category in annotations.categories] for one in results]
    drawn = bootstrap(matches[0], matches[1], sampling.resamples, sampling.seed, sampling.confidence)
    return drawn, ImageDraws.of(annotations, drawn.draws, drawn.confidence)


# People at a time in all draws: few enough for the memory.
_PEOPLE_DRAWN = 20_000_000


def _by_distances(
    annotations: Annotations, reference: Predictions, candidate: Predictions, sampling: Sampling
) -> tuple[Bootstrap, ImageDraws]:
    counts = draw_images(len(annotations.images), sampling.resamples, sampling.seed)
    draws = ImageDraws.of(annotations, counts, sampling.confidence)
    pair = [distances_of(annotations, one) for one in (reference, candidate)]
    places = np.array([draws.place_of[image] for image in reference.image_ids.tolist()])
    observed = [one.statistics(np.ones((1, len(places)), np.int32)) for one in pair]
    drawn = [_drawn(one, counts, places) for one in pair]
    bootstrapped = Bootstrap(
        {name: np.concatenate([one[name] for one in observed]) for name in observed[0]},
        {name: np.stack([one[name] for one in drawn]) for name in observed[0]},
        counts,
        sampling.confidence,
        PCK.score,
    )
    return bootstrapped, draws


def _drawn(distances: Distances, counts: Counts, places: NDArray[np.int64]) -> dict[str, Floats]:
    """Return each statistic in each draw of the images, in which each person has a place."""
    step = max(1, _PEOPLE_DRAWN // max(1, len(places)))
    parts = [distances.statistics(counts[start : start + step, places]) for start in range(0, len(counts), step)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
