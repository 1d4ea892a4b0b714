"""What the parts of a result have in common."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of a result: typed, unchanging, and without keys that nobody knows.

    JSON has no tuples, so lists are taken for them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
