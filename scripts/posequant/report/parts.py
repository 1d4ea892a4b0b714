"""What the parts of a result have in common."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of a result: typed and unchanging. A key that a newer version added is passed over.

    JSON has no tuples, so lists are taken for them.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)
