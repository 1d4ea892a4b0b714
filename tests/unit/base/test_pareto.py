import math

from hypothesis import given
from hypothesis import strategies as st

from posequant.base.pareto import pareto_front


def test_pareto_front_by_hand() -> None:
    # The second is as good as the first and dearer; the fourth is beaten by the third.
    assert pareto_front([1, 2, 3, 4, 0.5], [5, 5, 2, 3, 9]) == [4, 0, 2]


def test_what_is_unknown_is_left_out() -> None:
    assert pareto_front([1, 2, 3], [math.nan, 5, 4]) == [1, 2]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1))
def test_pareto_front_is_what_no_point_beats(points: list[tuple[int, int]]) -> None:
    front = {points[place] for place in pareto_front(*zip(*points, strict=True))}
    unbeaten = {
        point
        for point in points
        if not any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in points)
    }
    assert front == unbeaten
