"""How long jobs take together, and what is said of it."""

from typing import Any

import pytest

from posequant.workflow.costs import Network
from posequant.workflow.estimate import (
    Job,
    announcement,
    long_run,
    makespan,
    part_of,
    planned_job,
    roughly,
    size,
    size_of_study,
    work,
)

CONFIG: dict[str, Any] = {
    "variants": {"row": {"backend": "ncnn", "precision": "fp32"}},
    "studies": {
        "mine": {
            "dataset": {},
            "protocol": {"flip_test": False},
            "calibration": {"people": 8},
            "crops": {"limit_gb": 0.001},
            "variants": ["row"],
        }
    },
}


@pytest.mark.parametrize(
    ("jobs", "cores", "overhead", "seconds"),
    [
        pytest.param([], 4, 0, 0, id="none"),
        pytest.param([Job(5)] * 3, 1, 0, 15, id="one core: one after the other"),
        pytest.param([Job(5)] * 3, 2, 0, 10, id="two cores: two at once"),
        pytest.param([Job(5), Job(5, after=(0,)), Job(5, after=(1,))], 8, 0, 15, id="a chain"),
        pytest.param([Job(1, after=(1,)), Job(2)], 8, 0, 3, id="a job can wait for one behind it"),
        pytest.param([Job(1, 8, threads=4)], 4, 0, 3, id="threads share work"),
        pytest.param([Job(1, 8, threads=4)], 2, 0, 5, id="more threads than cores"),
        # The second does not fit beside the first; the third does.
        pytest.param([Job(4, threads=2), Job(4, threads=4), Job(4)], 4, 0, 8, id="what fits goes first"),
        pytest.param([Job(5), Job(5, after=(0,))], 8, 30, 70, id="a queue's overhead for each link"),
        pytest.param([Job(5)] * 4, 1, 30, 50, id="cores work on while the queue is polled"),
    ],
)
def test_time_of_jobs_on_some_cores(jobs: list[Job], cores: int, overhead: float, seconds: float) -> None:
    assert makespan(jobs, cores, overhead) == pytest.approx(seconds)


def test_work_of_a_shard_is_its_share_of_the_people() -> None:
    wildcards = {"study": "mine", "model": "m", "variant": "row", "shard": "1", "shards": "4"}
    found = work("predict", wildcards, CONFIG, network=Network(104.0, 1e6, 1000), people=400)
    assert (found.people, found.calibration, found.rows, found.kept) == (100, 8, (1.0,), False)
    chosen = work("distillation_crops", {"study": "mine", "people": "70"}, CONFIG, network=None, people=None)
    assert chosen.calibration == 70
    assert work("download", {}, CONFIG, network=None, people=None).people == 0
    job = planned_job("download", found, ["host/val2017.zip"], 1, (3,))
    assert (job.what, job.bytes, job.after) == ("downloads", 816e6, (3,))


def test_durations_and_sizes_are_rounded_as_estimates_are() -> None:
    assert [roughly(seconds) for seconds in (1, 43, 58, 300, 3400, 12_000, 40_000, 200_000)] == [
        *("10 s", "40 s", "1 min", "5 min", "1 h", "3 h 20 min", "11 h 10 min", "2 days 8 h")
    ]
    assert [size(count) for count in (4e5, 4.2e7, 2.12e9, 1.2e11)] == ["1 MB", "42 MB", "2.1 GB", "120 GB"]


def test_run_says_its_time_and_disk_and_warns_where_that_is_too_little() -> None:
    jobs = [Job(6000, what="crops", bytes=4e9), Job(6000, what="networks", bytes=1.5e9), Job(1, what="predictions")]
    said, warning = announcement(jobs, 1, free=2e10)
    assert said == (
        "Estimate: about 3 h 20 min on 1 core, 5.5 GB of disk (crops 4.0 GB, networks 1.5 GB); 20 GB are free."
    )
    assert warning == ""
    assert announcement(jobs, 1, free=2.1e9)[1].startswith(
        "warning: the disk may be too small: about 5.5 GB are written, and 2.1 GB are free."
    )


def test_nothing_is_said_of_a_short_run() -> None:
    assert announcement([Job(2)], 4, free=1e9) == ("", "")


def test_first_shards_hold_fewer_people_and_the_others_nobody() -> None:
    assert [part_of(shard, 4, 400, 230) for shard in (1, 2, 3, 4)] == [100, 100, 30, 0]
    assert sum(part_of(shard, 27, 104_125, 1000) for shard in range(1, 28)) == 1000
    # More people, from the subset of a study to all, share the shards.
    assert [part_of(shard, 2, 400, 1000) for shard in (1, 2)] == [500, 500]


def test_size_of_a_study_in_words() -> None:
    rows = [(network, row) for network in ("a", "b") for row in ("x", "y")]
    assert size_of_study(104_125, True, rows) == "104,125 boxes x 2 rows x 2 networks"
    assert size_of_study(300, False, rows[:2]) == "300 people x 2 rows"
    assert size_of_study(300, False, rows[:1]) == "300 people x 1 row"
    assert size_of_study(300, False, rows[:3]) == "300 people x 3 rows of 2 networks"


def hours(people: int) -> list[Job]:
    """Sixteen jobs: three hours for a thousand people, and a job of half an hour whoever is evaluated."""
    return [Job(1800), *[Job(people * 10.8 / 16)] * 16]


def test_long_study_says_its_time_on_more_cores_and_with_fewer_people() -> None:
    # 30 h and the half hour on one core, two hours each on sixteen, beside which the half hour goes before one of them.
    assert long_run("10,000 people x 1 row", hours(10_000), 1, hours, 10_000) == (
        "The full study, 10,000 people x 1 row: about 30 h 30 min on 1 core, 2 h 20 min on 16; a quick answer first, "
        "--config people=200: 1 h 10 min."
    )


def test_fewest_people_are_offered_where_no_answer_is_quick_and_none_where_it_gains_nothing() -> None:
    slow = [Job(7200)]
    said = long_run("all", [*slow, *hours(2000)], 1, lambda people: [*slow, *hours(people)], 2000)
    assert said.endswith("--config people=100: 2 h 50 min.")
    said = long_run("all", [*slow, *hours(200)], 1, lambda people: [*slow, *hours(people)], 200)
    assert said == "The full study, all: about 3 h 10 min on 1 core, 2 h on 16."


def test_subset_says_what_the_full_study_takes_and_short_studies_say_nothing() -> None:
    assert long_run("all", [Job(7200)], 16) == "The full study, all: about 2 h on 16 cores."
    assert long_run("all", [Job(3600)], 2, hours, 10_000) == ""
