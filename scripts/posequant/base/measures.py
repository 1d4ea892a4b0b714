"""What networks of a set of keypoints are judged by, and how pages say it.

With sigmas that are AP against the annotations, and OKS against FP32; without, PCK and the normalised mean error (NME).
Pages are written in the words of the first. `Measure.said` puts them into those of the second.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# In the order in which pycocotools' COCOeval gives them.
STATISTICS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")


@dataclass(frozen=True)
class Measure:
    """What networks are judged by.

    Attributes:
        score: the statistic against annotations.
        loss: what the poses of two networks are compared by.
        words: what stands for the words of AP and OKS; empty where these are meant.
    """

    score: str
    loss: str
    words: tuple[tuple[str, str], ...] = ()

    def said(self, text: str) -> str:
        """Return a text that speaks of AP and OKS in the words of this measure."""
        if not self.words:
            return text
        words = dict(self.words)
        return re.sub("|".join(rf"\b{re.escape(word)}\b" for word in words), lambda found: words[found[0]], text)


AP = Measure("AP", "OKS")
PCK = Measure(
    "PCK",
    "NME",
    (
        # The longer ones first.
        (
            "COCO keypoints (OKS) by pycocotools; scoring, rescoring and NMS as in mmpose",
            "PCK (within 0.2 of the longer side of the box), AUC (up to 30 px), EPE and NME as in mmpose. The dataset "
            "has no sigmas, so there is neither OKS nor AP. NME to FP32 is by the root of 0.53 times the box's area",
        ),
        ("COCO's average precision of keypoints", "share of keypoints within 0.2 of the longer side of the box"),
        ("1 - the mean OKS of", "NME of"),
        ("OKS loss: 1 - the mean OKS of the poses", "NME: the normalised mean error of the poses"),
        ("of OKS", "by NME"),
        ("OKS loss**: 1 - mean OKS to the poses", "NME**: normalised mean error to the poses"),
        ("1 - mean OKS to the poses", "NME to the poses"),
        ("1 - OKS with the pose", "NME with the pose"),
        ("loss of its part in OKS", "NME of it"),
        ("loss of OKS", "NME"),
        ("Loss of OKS", "NME"),
        ("OKS loss", "NME"),
        ("mean OKS of", "mean (1 - NME) of"),
        ("OKS", "1 - NME"),
        ("AP", "PCK"),
    ),
)


def measure_for(sigmas: Sequence[float] | None) -> Measure:
    """Return what networks of keypoints with these sigmas are judged by, or of keypoints without any."""
    return AP if sigmas else PCK


def measure_in(record: Mapping[str, Any]) -> Measure:
    """Return what the network of a record is judged by: its key `judged_by` has the `loss`. OKS where it is missing."""
    return AP if record.get("judged_by", AP.loss) == AP.loss else PCK


def measure_of(statistics: Iterable[str]) -> Measure:
    """Return what networks are judged by of whom there are these statistics, by their names."""
    return AP if AP.score in statistics else PCK
