"""What a package says of its network, in words."""

from collections.abc import Mapping
from typing import Any

from posequant.base.markdown import figure_or_dash
from posequant.base.measures import measure_of
from posequant.certify.page import kept, near, stated
from posequant.evaluate.ground import subset_words


def certified(certificate: Mapping[str, Any]) -> str:
    """Return what a certificate comes to: what is kept of FP32, and how near its poses are."""
    precision, confidence = certificate["precision"].upper(), 100 * certificate["bootstrap"]["confidence"]
    share, oks = certificate["share_of_fp32"], certificate["without_labels"]["oks"]
    measure = measure_of(certificate["statistics"])
    lost = f"difference {stated(certificate['statistics'][measure.score])}"
    sentences = [
        f"In {precision} it keeps {kept(share)} of the AP that the same runtime has in FP32 ({lost})." if share else "",
        f"Its poses have a mean OKS of {near(oks)} to those in FP32." if oks else "",
        f"In brackets, the {confidence:g}% interval." if share or oks else "What it keeps of FP32 is not known.",
    ]
    return measure.said(" ".join(filter(None, sentences)))


def measured(evaluation: Mapping[str, Any]) -> str:
    """Return what a network scores, and on whom."""
    protocol, flipped = evaluation["protocol"], evaluation["protocol"]["flip_test"]
    score = measure_of(evaluation["statistics"]).score
    boxes = {"ground-truth": "annotated boxes", "detections": "boxes of a detector"}[protocol["boxes"]]
    return (
        f"It was evaluated on {evaluation['images']:,} images with {boxes}, {'with' if flipped else 'without'} a flip "
        f"test: {score} {figure_or_dash(evaluation['statistics'][score])}, {evaluation['instances']:,} people."
        + (f" They are a subset: {subset}." if (subset := subset_words(protocol)) else "")
        + (" The programs here make no flip test: they score a little less." if flipped else "")
    )
