"""How calibration people are split: by image, in fixed shares, the same for more people of one seed."""

import numpy as np
import pytest

from posequant.base.errors import InputError
from posequant.recipe.parts import MIN_PEOPLE, Parts, split, tell_of_few

# Twenty people of twelve images, as they are chosen: one of each image first.
IMAGES = np.array([*range(100, 112), *range(100, 108)])


def test_half_is_seen_a_quarter_decides_and_a_quarter_tells() -> None:
    parts = split(np.arange(40))
    assert [len(places) for places in vars(parts).values()] == [20, 10, 10]
    assert sorted(np.concatenate(list(vars(parts).values())).tolist()) == list(range(40))


def test_parts_share_no_image() -> None:
    parts = split(IMAGES)
    images = [set(IMAGES[places].tolist()) for places in vars(parts).values()]
    assert sum(map(len, images)) == len(set.union(*images)) == 12
    assert [places.tolist() for places in vars(parts).values()] == [
        [0, 2, 4, 6, 8, 10, 12, 14, 16, 18],
        [1, 5, 9, 13, 17],
        [3, 7, 11, 15, 19],
    ]


def test_more_people_of_one_seed_leave_each_in_its_part() -> None:
    fewer, more = split(IMAGES[:14]), split(IMAGES)
    for few, many in zip(vars(fewer).values(), vars(more).values(), strict=True):
        assert set(few.tolist()) <= set(many.tolist())


def test_all_people_of_few_images_are_seen_and_decide(capsys: pytest.CaptureFixture[str]) -> None:
    parts = split(np.array([1, 2, 3, 1, 2, 3]))
    assert [places.tolist() for places in vars(parts).values()] == [[*range(6)], [*range(6)], []]
    tell_of_few(parts, bounded=False)
    assert "in fewer than 4 images are not split" in capsys.readouterr().err
    with pytest.raises(InputError, match="a budget needs calibration people in at least 4 images"):
        tell_of_few(parts, bounded=True)


@pytest.mark.parametrize(
    ("deciding", "telling", "bounded", "told"),
    [
        (MIN_PEOPLE, MIN_PEOPLE - 1, True, True),
        (MIN_PEOPLE, 90, True, False),
        (MIN_PEOPLE, MIN_PEOPLE - 1, False, False),
    ],
)
def test_few_people_are_told(
    deciding: int, telling: int, bounded: bool, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    tell_of_few(Parts(np.arange(100), np.arange(deciding), np.arange(telling)), bounded=bounded)
    assert bool(capsys.readouterr().err) == told
