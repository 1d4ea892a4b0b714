"""A file of one's own that names a set of keypoints."""

from typing import Annotated

from pydantic import Field, model_validator

from posequant.workflow.settings.base import Settings, fault

Pair = Annotated[list[str], Field(min_length=2, max_length=2)]


class KeypointFile(Settings):
    """The keypoints of a dataset, by their names."""

    names: list[str] = Field(min_length=1, description="Of the keypoints, in the order of annotations and outputs.")
    skeleton: list[Pair] = Field(default=[], description="Pairs of keypoints that a drawing joins by lines.")
    swaps: list[Pair] = Field(default=[], description="Pairs that a mirrored image swaps, as left and right.")
    sigmas: list[Annotated[float, Field(gt=0)]] | None = Field(
        default=None, description="Falloff of OKS for each keypoint. Without it there is neither OKS nor AP."
    )

    @model_validator(mode="after")
    def _agrees(self) -> "KeypointFile":
        known = set(self.names)
        if len(known) != len(self.names):
            raise fault("names has a keypoint twice")
        for key, pairs in (("skeleton", self.skeleton), ("swaps", self.swaps)):
            if strangers := sorted({name for pair in pairs for name in pair} - known):
                raise fault(f"{key} has '{strangers[0]}', which names does not have")
        swapped = [name for pair in self.swaps for name in pair]
        if len(set(swapped)) != len(swapped):
            raise fault("swaps has a keypoint twice")
        if self.sigmas is not None and len(self.sigmas) != len(self.names):
            raise fault(f"sigmas has {len(self.sigmas)} numbers for {len(self.names)} keypoints")
        return self
