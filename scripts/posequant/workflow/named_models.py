"""Networks that a study names: what mmpose's model index says of them, as if the study had said it."""

from collections.abc import Mapping
from pathlib import PurePosixPath

from posequant.base.errors import InputError
from posequant.base.model_index import find_network
from posequant.workflow.settings.config import (
    CocoDataset,
    MmposeModel,
    NamedModel,
    Study,
    Variant,
)


def filled_from_index(model: NamedModel, study: Study, variants: Mapping[str, Variant]) -> MmposeModel:
    """Return the settings of a named network; what it says itself counts more than the index.

    Figures of the index are taken where the study evaluates on what they were evaluated on, by the name of the file of
    annotations. They belong to the rows in FP32.

    Args:
        model: of the study.
        study: that names it.
        variants: of the configuration.

    Raises:
        InputError: the index has no such network, or lacks its config or checkpoint and `model` does so, too.
    """
    network = find_network(model.name)
    config = model.config or (network.config and network.config.stem)
    checkpoint = model.checkpoint or network.checkpoint
    if not config:
        raise InputError(f"mmpose ships no config for '{network.name}'; give it, as 'config' beside 'name'")
    if not checkpoint:
        raise InputError(
            f"mmpose's model index gives '{network.name}' the checkpoint of another network; give its own, as "
            "'checkpoint' beside 'name'"
        )
    backends = {variants[name].backend for name in study.variants if name in variants}
    rows = [name for name, one in variants.items() if one.precision == "fp32" and one.backend in backends]
    published = [
        {
            "variants": rows,
            "protocol": {"boxes": figures.boxes, "flip_test": network.flip_test},
            "statistics": figures.statistics,
            "source": f"mmpose's model index, {network.metafile}",
        }
        for figures in network.published
        if rows and figures.annotations == _annotations(study)
    ]
    found = {
        "source": "mmpose",
        "architecture": " ".join(network.architecture),
        "config": config,
        "checkpoint": checkpoint,
        "published": published,
    }
    return MmposeModel.model_validate(found | model.model_dump(exclude_unset=True, exclude={"name"}))


def _annotations(study: Study) -> str | None:
    """Return the name of the file of annotations that a study evaluates on; None where it is drawn."""
    if not isinstance(study.dataset, CocoDataset):
        return None
    return PurePosixPath(study.dataset.val.annotations.partition("#")[0]).name
