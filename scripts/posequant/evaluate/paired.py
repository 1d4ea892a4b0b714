"""The paired bootstrap of two predictions, by the settings of a study.

Apart from the bootstrap itself, so that an edit of those settings reruns nothing that draws by settings of its own.
"""

from posequant.data.dataset import Annotations
from posequant.evaluate.bootstrap import Bootstrap, ImageDraws, bootstrap, match
from posequant.evaluate.keypoint_metrics import coco_results
from posequant.evaluate.predictions import Predictions
from posequant.workflow.settings.certify import Sampling


def bootstrap_predictions(
    annotations: Annotations, reference: Predictions, candidate: Predictions, sampling: Sampling
) -> tuple[Bootstrap, ImageDraws]:
    """Compare two predictions of all people of the annotations; return the draws of their images, too."""
    matches = [match(annotations, coco_results(one, annotations.person_category)) for one in (reference, candidate)]
    drawn = bootstrap(matches[0], matches[1], sampling.resamples, sampling.seed, sampling.confidence)
    return drawn, ImageDraws.of(annotations, drawn.draws, drawn.confidence)
