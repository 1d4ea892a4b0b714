"""The pictures of a row as a page of Markdown."""

from collections.abc import Iterable, Mapping
from typing import Any

from posequant.base.measures import measure_in

_HEADINGS = {
    "worst": "The largest losses",
    "typical": "Near the median loss",
    "random": "Drawn at random",
}


def render(pictures: Mapping[str, Any]) -> str:
    """Return the page of what `make_pictures` returned; its links are those in there."""
    return measure_in(pictures).said("\n\n".join(_paragraphs(pictures)) + "\n")


def _paragraphs(pictures: Mapping[str, Any]) -> Iterable[str]:
    people, settings = pictures["people"], pictures["settings"]
    row, reference = pictures["variant"], pictures["reference"]
    yield f"# Pictures of {row}, {pictures['model']}"
    if not people:
        yield "Nobody is shown: the settings ask for nobody, or FP32 is sure of no keypoint."
        return
    yield (
        f"Poses by {row} and by FP32 in the same runtime ({reference}) over the same photographs. Blue is FP32, orange "
        f"is {row}, and thin green the annotation. Keypoints with a score of at most {pictures['least_score']:g} are "
        "not drawn. The white ring is where FP32 has the joint that moved most; an arrow leads to where "
        f"{row} has it, whatever its score."
    )
    yield (
        "Loss is 1 - OKS with the pose of FP32 in the place of the truth: 0 where nothing moved. Distances are in "
        "pixels of the image."
    )
    if any(person["heatmaps"] for person in people):
        yield (
            "Below each photograph are the heatmaps of that joint. The first two have one scale, from "
            "dark (least) to yellow (largest); rings mark where each is largest. The third is the difference: orange "
            f"where {row} has more than FP32, blue where it has less, and full colour at the largest difference."
        )
    for choice, heading in _HEADINGS.items():
        if shown := [person for person in people if person["choice"] == choice]:
            yield f"## {heading}"
            if choice == "random":
                yield f"Seed {settings['seed']}."
            for person in shown:
                yield from _of_person(person)


def _of_person(person: Mapping[str, Any]) -> Iterable[str]:
    image, moved = person["image"], person["moved_most"]
    yield f"### {person['choice'].capitalize()} {person['rank']}: loss {person['loss']:.4f}"
    yield f"![The two poses over {image['file_name']}]({person['compared']})"
    box = "{:g}, {:g}, {:g} x {:g}".format(*person["box"])
    sure = sum(shift is not None for shift in person["shifts"])
    words = [f"`{image['file_name']}`, image {image['id']}, {_who(person)}, box {box} px."]
    words.append(f"OKS to FP32 {1 - person['loss']:.4f} over {_counted(sure, 'keypoint')}.")
    joint = f"`{moved['joint']}`"
    words.append(f"Moved most: {joint}, by {moved['pixels']:.1f} px." if moved["pixels"] else "No keypoint moved.")
    if person["heatmaps"]:
        words.append(f"Heatmaps of {joint}: largest difference {person['heatmaps']['largest_difference']:.3g}.")
    yield " ".join(words)


def _who(person: Mapping[str, Any]) -> str:
    annotated = "no annotation" if person["annotation_id"] is None else f"annotation {person['annotation_id']}"
    return annotated if person["detection"] is None else f"detection {person['detection']} ({annotated})"


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
