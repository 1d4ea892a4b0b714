from collections import Counter
from itertools import pairwise
from time import perf_counter, sleep, thread_time

import pytest

from posequant.base.timing import order_of_round, time_in_turn


@pytest.mark.parametrize("count", range(1, 12))
def test_each_comes_after_each_other_equally_often(count: int) -> None:
    rounds = 2 * count
    orders = [order_of_round(number, count) for number in range(rounds)]
    assert all(sorted(order) == list(range(count)) for order in orders)
    followed = Counter(pair for order in orders for pair in pairwise(order))
    assert followed == {(one, other): 2 for one in range(count) for other in range(count) if one != other}
    assert all(Counter(order[place] for order in orders) == dict.fromkeys(range(count), 2) for place in range(count))


def test_two_swap_places() -> None:
    assert [order_of_round(number, 2) for number in range(3)] == [[0, 1], [1, 0], [0, 1]]


def test_every_round_runs_all_with_its_number() -> None:
    called: list[tuple[str, int]] = []
    works = [lambda number, name=name: called.append((name, number)) for name in "abc"]
    times = time_in_turn(works, warm_up=1, rounds=4, minimum_rounds=1, seconds=60)
    assert times.shape == (4, 3)
    assert (times > 0).all()
    assert called[:3] == [("a", 0), ("b", 0), ("c", 0)]
    assert Counter(called[3:]) == {(name, number): 1 for name in "abc" for number in range(4)}


def test_waiting_is_no_time_of_the_thread() -> None:
    def wait(_: int) -> None:
        sleep(0.02)

    by_thread, by_wall = (
        time_in_turn([wait], warm_up=0, rounds=3, minimum_rounds=3, seconds=60, clock=clock).sum()
        for clock in (thread_time, perf_counter)
    )
    assert by_thread < by_wall / 2
