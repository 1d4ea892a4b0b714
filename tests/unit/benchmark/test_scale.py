"""The model of a study on many cores: read from a dry run, worked out by hand."""

import pytest
from tests.unit.workflow.test_estimate import CONFIG

from posequant.benchmark.scale import modelled_jobs, planned_jobs, shards_table, start_up
from posequant.workflow.costs import Network
from posequant.workflow.estimate import Job

DRY_RUN = """\
Building DAG of jobs...

[Wed Nov 25 18:41:49 2026]
localrule describe:
    input: models/config.py
    output: results/mine/net/model.json
    jobid: 2
    reason: Missing output files: results/mine/net/model.json
    wildcards: study=mine, model=net

[Wed Nov 25 18:41:49 2026]
rule predict:
    input: results/mine/net/model.json, images
    output: results/mine/net/row/shards/1-of-2.npz
    log: results/mine/net/row/shards/1-of-2.log
    jobid: 1
    wildcards: study=mine, model=net, variant=row, shard=1, shards=2
    threads: 4
    resources: tmpdir=/tmp, mem_mb=4000

Job stats:
job         count
"""


def test_jobs_of_a_dry_run_wait_for_the_makers_of_their_inputs() -> None:
    describe, predict = planned = planned_jobs(DRY_RUN)
    assert (describe.rule, describe.threads, describe.output) == ("describe", 1, ("results/mine/net/model.json",))
    assert (predict.threads, predict.wildcards["shards"]) == (4, "2")
    first, second = modelled_jobs(planned, CONFIG, {"net": Network(104.0, 100e6, 1000)}, people=200)
    assert (first.after, second.after) == ((), (0,))
    # Half of the people, of a second and 3 ms each.
    assert second.shared == pytest.approx(100.3)
    assert second.threads == 4


def test_best_size_of_shards_is_bold() -> None:
    plans = {1.0: [Job(100, 400, threads=4)] * 4, 10.0: [Job(100, 1600, threads=4)]}
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in shards_table(plans, {1.0: [4], 10.0: [1]}, 0).splitlines()
    ]
    assert lines[0] == [
        "Minutes of a shard",
        "Shards",
        "Jobs",
        *("1 core", "16 cores", "64 cores", "256 cores"),
        "Start-up",
    ]
    # On one core 4 x 500 s against 1700 s; on many 200 s against 500 s.
    assert lines[2][3:5] == ["33 min", "**3 min**"]
    assert lines[3][3:5] == ["**28 min**", "8 min"]
    assert start_up(plans[1.0]) == pytest.approx(0.2)
