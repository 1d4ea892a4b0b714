"""What a run says on the terminal, from the records that Snakemake logs."""

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posequant.workflow.terminal import Terminal, in_words, install, last_line, notices, place_of, summary


class Stream(io.StringIO):
    """A stream that says whether somebody watches."""

    def __init__(self, watched: bool = False) -> None:
        super().__init__()
        self._watched = watched

    def isatty(self) -> bool:
        return self._watched


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def logger(stream: Stream) -> Iterator[logging.Logger]:
    logger = logging.Logger("run")
    handler = logging.StreamHandler(stream)
    handler.name = "DefaultStreamHandler"
    logger.addHandler(handler)
    install(logger)
    yield logger
    for each in logger.handlers:
        each.close()


def log(logger: logging.Logger, event: str, message: str | None = None, **details: Any) -> None:
    logger.info(message, extra={"event": event, **details})


def start(logger: logging.Logger, number: int, rule: str, logs: tuple[str, ...] = (), **wildcards: str) -> None:
    log(logger, "job_info", f" Rule: {rule}", jobid=number, rule_name=rule, wildcards=wildcards, log=logs)


def test_a_job_is_one_line_when_it_ends(logger: logging.Logger, stream: Stream) -> None:
    log(logger, "run_info", "Job stats: 2", stats={"total": 2})
    start(logger, 7, "predict", study="demo", model="net", variant="ncnn", shard="1", shards="1")
    start(logger, 8, "evaluate", study="demo", model="net", variant="ncnn")
    log(logger, "job_finished", "Finished jobid: 8", job_id=8)
    log(logger, "progress", done=1, total=2)
    log(logger, "job_finished", "Finished jobid: 7", job_id=7)
    first, second, third = stream.getvalue().splitlines()
    assert first == "Job stats: 2"
    assert second.split() == ["[1/2]", "50%", "evaluate", "demo/net/ncnn", "0.0", "s"]
    assert third.split() == ["[2/2]", "100%", "predict", "demo/net/ncnn", "0.0", "s"]


def test_a_record_that_cannot_be_understood_ends_no_run(
    logger: logging.Logger, stream: Stream, capsys: pytest.CaptureFixture[str]
) -> None:
    log(logger, "job_info", "of another version of Snakemake")
    log(logger, "", "still there")
    assert stream.getvalue() == "still there\n"
    assert "KeyError" in capsys.readouterr().err


def test_chatter_is_left_out_and_everything_else_is_whole(logger: logging.Logger, stream: Stream) -> None:
    for message in ("Select jobs to execute...", "Execute 3 jobs...", "Building DAG of jobs...", "Using shell: bash"):
        logger.info(message)
    log(logger, "shellcmd", cmd="python x.py")
    logger.warning("a warning\nof two lines")
    logger.info("Complete log(s): run.log")
    assert stream.getvalue() == "a warning\nof two lines\nComplete log(s): run.log\n"


def test_an_error_is_written_as_snakemake_does(logger: logging.Logger, stream: Stream) -> None:
    start(logger, 3, "export", study="demo")
    logger.error("Error in rule export", extra={"event": "job_error", "jobid": 3})
    assert stream.getvalue() == "Error in rule export\n"


def test_quiet_runs_stay_quiet(logger: logging.Logger, stream: Stream) -> None:
    (terminal,) = logger.handlers
    assert isinstance(terminal, Terminal)
    terminal._replaced.addFilter(lambda record: getattr(record, "event", "") != "job_finished")
    start(logger, 1, "export")
    log(logger, "job_finished", job_id=1)
    assert stream.getvalue() == ""


def test_notices_of_a_step_stand_below_its_line(logger: logging.Logger, stream: Stream, tmp_path: Path) -> None:
    path = tmp_path / "step.log"
    path.write_text("working:  50%|\nnotice: layer x stays in float\nWarning: beware\nnothing of note\n")
    start(logger, 1, "apply_recipe", logs=(str(path),))
    log(logger, "job_finished", job_id=1)
    assert stream.getvalue().splitlines()[1:] == ["    notice: layer x stays in float", "    Warning: beware"]
    assert list(notices((tmp_path / "missing.log",))) == []


def test_progress_is_shown_to_who_watches(tmp_path: Path) -> None:
    stream = Stream(watched=True)
    handler = logging.StreamHandler(stream)
    terminal = Terminal(handler)
    logger = logging.Logger("run")
    logger.addHandler(terminal)
    path = tmp_path / "predict.log"
    path.write_text("predicting:  10%|\rpredicting:  40%|\r")
    log(logger, "run_info", "Job stats", stats={"total": 2})
    start(logger, 1, "predict", logs=(str(path),), study="demo")
    assert terminal.running() == "predict demo: predicting:  40%|"
    start(logger, 2, "simplify", study="demo")
    assert terminal.running() == "predict demo, simplify demo"
    log(logger, "job_finished", job_id=1)
    log(logger, "job_finished", job_id=2)
    assert "100%" in stream.getvalue()
    assert terminal._progress is None


def test_only_snakemakes_own_handler_is_replaced() -> None:
    logger, other = logging.Logger("run"), logging.StreamHandler(io.StringIO())
    logger.addHandler(other)
    install(logger)
    assert logger.handlers == [other]


@pytest.mark.parametrize(
    ("wildcards", "place"),
    [
        ({}, ""),
        ({"study": "demo"}, "demo"),
        ({"study": "demo", "model": "net", "weights": "fp16"}, "demo/net fp16"),
        ({"study": "demo", "model": "net", "variant": "ncnn", "shard": 2, "shards": 8}, "demo/net/ncnn 2-of-8"),
        ({"download": "host/file.zip"}, "host/file.zip"),
    ],
)
def test_place_of_a_job(wildcards: dict[str, Any], place: str) -> None:
    assert place_of(wildcards) == place


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (59.96, "1:00 min"), (125.4, "2:05 min"), (3725, "1:02:05 h")],
)
def test_durations(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


@given(st.text(alphabet="ab \r\n", max_size=40))
@settings(deadline=None)
def test_last_line_is_the_last_that_is_not_empty(text: str) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(text.encode())
        lines = [line.strip() for line in text.replace("\r", "\n").split("\n") if line.strip()]
        assert last_line((Path(file.name),)) == (lines[-1] if lines else "")


def test_summary_has_the_verdicts_and_the_first_table_of_each_network() -> None:
    network = (
        "- **ncnn: within the tolerance.** It keeps 99%.\n\n| Row   | AP\N{NO-BREAK SPACE}x   |\n|:------|:-----|\n"
        "| [ncnn](x.md)  | 0.5  |\n\nWords with a [link](z.md).\n\n### Costs\n\n| Row   |\n|:---|\n| more |\n\n"
    )
    page = f"# Results\n\nWords.\n\n## Net, 8x8\n\n{network}## Other, 9x9\n\n{network}# Backends\n\n| more |\n"
    said = "- ncnn: within the tolerance\n\nRow   AP x\n----------\nncnn  0.5"
    assert summary(page) == f"## Net, 8x8\n\n{said}\n\n## Other, 9x9\n\n{said}"
