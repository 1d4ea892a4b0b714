"""How parsers are fuzzed: a test under `@fuzz` and `@given` has a thousand cases, or as many as the environment says.

`make fuzz` asks for ten thousand. A thousand are the same in every run, so that the tests say the same of the same
code; more than these are new in every run, and what fails is printed as a line to paste above the test.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

_EVERY_RUN = 1000
EXAMPLES = int(os.environ.get("POSEQUANT_FUZZ_EXAMPLES", _EVERY_RUN))

FUZZ = settings(
    max_examples=EXAMPLES,
    derandomize=EXAMPLES <= _EVERY_RUN,
    database=None,
    deadline=None,
    print_blob=True,
    # A test may write every case to one file of its `tmp_path`.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


def fuzz(test: Callable[..., Any]) -> Callable[..., Any]:
    """Return a test made by `@given`, with as many cases as are asked for and the mark `fuzz`."""
    marked: Callable[..., Any] = pytest.mark.fuzz(FUZZ(test))
    return marked
