"""What a package says of its network, in words."""

from collections.abc import Mapping
from typing import Any

from posequant.base.markdown import figure_or_dash
from posequant.certify.page import kept, near, stated


def certified(certificate: Mapping[str, Any]) -> str:
    """Return what a certificate comes to: what is kept of FP32, and how near its poses are."""
    precision, confidence = certificate["precision"].upper(), 100 * certificate["bootstrap"]["confidence"]
    return (
        f"In {precision} it keeps {kept(certificate['share_of_fp32'])} of the AP that the same runtime has in FP32 "
        f"(difference {stated(certificate['statistics']['AP'])}). Its poses have a mean OKS of "
        f"{near(certificate['without_labels']['oks'])} to those in FP32. In brackets, the {confidence:g}% interval."
    )


def measured(evaluation: Mapping[str, Any]) -> str:
    """Return what a network scores, and on whom."""
    protocol, flipped = evaluation["protocol"], evaluation["protocol"]["flip_test"]
    boxes = {"ground-truth": "annotated boxes", "detections": "boxes of a detector"}[protocol["boxes"]]
    return (
        f"It was evaluated on {evaluation['images']:,} images with {boxes}, {'with' if flipped else 'without'} a flip "
        f"test: AP {figure_or_dash(evaluation['statistics']['AP'])}, {evaluation['instances']:,} people."
        + (" The programs here make no flip test: they score a little less." if flipped else "")
    )
