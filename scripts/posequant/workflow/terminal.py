"""What a run says on the terminal: one line a job when it ends, and a progress bar where somebody watches.

It listens to Snakemake's log records (snakemake_interface_logger_plugins.common.LogEvent names their kinds) and needs
no plugin. Snakemake's own log file keeps every detail.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, Task

# Kinds of records that one line a job makes superfluous.
_REPLACED = {"job_started", "group_info", "progress", "resources_info", "shellcmd", "workflow_started"}
# Messages without a kind that say nothing to whoever waits for a result.
_CHATTER = re.compile(
    r"(Select jobs to execute|Execute \d+ jobs|Building DAG|Using shell|Conda environments: ignored"
    r"|Singularity containers: ignored|Group jobs: inactive|Storing output in storage|Removing temporary output)"
)
# How steps begin what the user should read even where all went well.
_NOTICE = re.compile(r"(notice|warning): ", re.IGNORECASE)
# How much of the end of a log is looked at for its last line, in bytes.
_TAIL = 4096


@dataclass(frozen=True)
class Job:
    """A job that was started.

    Attributes:
        rule: its name.
        place: what of the study it is about, from its wildcards.
        logs: its log files.
        start: when it was started, in seconds of a monotonic clock.
    """

    rule: str
    place: str
    logs: tuple[Path, ...]
    start: float


class Terminal(logging.Handler):
    """Takes the place of the handler by which Snakemake writes to the terminal.

    Attributes:
        finished: the jobs that ended well, in order.
    """

    def __init__(self, replaced: "logging.StreamHandler[Any]") -> None:
        """Write to the stream of the `replaced` handler, which still writes what is not about single jobs."""
        super().__init__(replaced.level)
        self.name = replaced.name
        self._replaced = replaced
        self.finished: list[Job] = []
        self._running: dict[int, Job] = {}
        self._total = 0
        self._progress: Progress | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write what a record says, if anything. A record that cannot be understood is told of; it ends no run."""
        try:
            self._emit(record)
        except Exception:  # as logging's own handlers do
            self.handleError(record)

    def _emit(self, record: logging.LogRecord) -> None:
        # `--quiet` and its like are filters of the handler that is replaced.
        if not self._replaced.filter(record):
            return
        event = str(getattr(record, "event", ""))
        if event == "run_info":
            self._total = record.__dict__["stats"]["total"]
            self._replaced.emit(record)
            self._show_progress()
        elif event == "job_info":
            self._start(record.__dict__)
        elif event == "job_finished":
            self._end(record.__dict__["job_id"])
        elif event in _REPLACED or (not event and _CHATTER.match(str(record.msg))):
            return
        elif event == "job_error":
            self._running.pop(record.__dict__["jobid"], None)
            self._without_progress(record)
        else:
            self._without_progress(record)

    def close(self) -> None:
        """Take the progress bar away."""
        self._hide_progress()
        super().close()

    def running(self) -> str:
        """Return what is running now: of a job by itself also the last line that it wrote."""
        jobs = list(self._running.values())
        said = last_line(jobs[0].logs) if len(jobs) == 1 else ""
        names = ", ".join(f"{job.rule} {job.place}".strip() for job in jobs)
        return f"{names}: {said}" if said else names

    def _start(self, details: Mapping[str, Any]) -> None:
        wildcards = dict(details["wildcards"] or {})
        logs = tuple(Path(str(log).partition(" (")[0]) for log in details["log"] or ())
        self._running[details["jobid"]] = Job(details["rule_name"], place_of(wildcards), logs, monotonic())

    def _end(self, number: int) -> None:
        job = self._running.pop(number, None)
        if job is None:
            return
        self.finished.append(job)
        done = len(self.finished)
        total = max(self._total, done)
        width = len(str(total))
        line = (
            f"[{done:>{width}}/{total}] {done / total:>4.0%}  {job.rule:<20} {job.place:<40}"
            f" {in_words(monotonic() - job.start):>8}"
        )
        self._write(line)
        for notice in notices(job.logs):
            self._write(f"    {notice}")
        if self._progress:
            self._progress.update(self._progress.task_ids[0], completed=done, total=total)
        if done == total:
            self._hide_progress()

    def _write(self, line: str) -> None:
        if self._progress:
            self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            self._replaced.stream.write(line + "\n")
            self._replaced.flush()

    def _without_progress(self, record: logging.LogRecord) -> None:
        """Write a record as Snakemake does; the bar would be torn by what does not go through it."""
        shown = self._progress is not None
        self._hide_progress()
        self._replaced.emit(record)
        if shown:
            self._show_progress()

    def _show_progress(self) -> None:
        stream = self._replaced.stream
        if self._progress or not self._total or not stream.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn

        self._progress = Progress(
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            self._running_column(),
            console=Console(file=stream),
            refresh_per_second=4,
            transient=True,
        )
        self._progress.add_task("jobs", total=self._total, completed=len(self.finished))
        self._progress.start()

    def _running_column(self) -> "ProgressColumn":
        from rich.progress import ProgressColumn
        from rich.text import Text

        terminal = self

        class Running(ProgressColumn):
            max_refresh = 0.5

            def render(self, task: "Task") -> Text:
                return Text(terminal.running(), overflow="ellipsis", no_wrap=True)

        return Running()

    def _hide_progress(self) -> None:
        if self._progress:
            self._progress.stop()
            self._progress = None


def install(logger: logging.Logger) -> Terminal | None:
    """Let a `Terminal` take the place of Snakemake's handler for the terminal and return it, if `logger` has that."""
    for handler in logger.handlers:
        if handler.name == "DefaultStreamHandler" and isinstance(handler, logging.StreamHandler):
            logger.removeHandler(handler)
            terminal = Terminal(handler)
            logger.addHandler(terminal)
            return terminal
    return None


def place_of(wildcards: Mapping[str, Any]) -> str:
    """Return what of a study a job's wildcards name: `demo/hourglass_demo/ncnn-int8`, and others behind it."""
    path = "/".join(str(wildcards[name]) for name in ("study", "model", "variant") if name in wildcards)
    others = {name: value for name, value in wildcards.items() if name not in ("study", "model", "variant")}
    if {"shard", "shards"} <= others.keys():
        shard, shards = others.pop("shard"), others.pop("shards")
        if str(shards) != "1":
            others["shard"] = f"{shard}-of-{shards}"
    return " ".join(part for part in (path, *map(str, others.values())) if part)


def in_words(seconds: float) -> str:
    """Return a duration: `5.9 s`, or from a minute on `2:05 min`, or from an hour on `1:02:05 h`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


def notices(logs: tuple[Path, ...]) -> Iterator[str]:
    """Yield the lines of a finished job's logs that begin with `notice:` or `warning:`."""
    for log in logs:
        if log.is_file():
            with log.open(errors="replace") as lines:
                yield from (line.rstrip() for line in lines if _NOTICE.match(line))


def last_line(logs: tuple[Path, ...]) -> str:
    """Return the last line that is not empty in the first of `logs`; a progress bar's lines end in carriage returns."""
    try:
        with logs[0].open("rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - _TAIL))
            end = stream.read().decode(errors="replace")
    except (IndexError, OSError):
        return ""
    return next((line.strip() for line in reversed(re.split(r"[\r\n]", end)) if line.strip()), "")


def summary(page: str) -> str:
    """Return of the page of a study what a terminal shows: of each network its name, its verdicts and its first table.

    Of many networks it is their overview. Tables are aligned; links are left out, and of a verdict all but the words in
    bold.
    """
    opening = re.split(r"\n# (?:Figures|Backends)\n", page)[0].replace("\N{NO-BREAK SPACE}", " ")
    opening = re.sub(r"^### .*?(?=^## |\Z)", "", opening, flags=re.MULTILINE | re.DOTALL)
    if overview := re.search(r"^## Networks\n.*?(?=^## |\Z)", opening, flags=re.MULTILINE | re.DOTALL):
        opening = overview[0]
    opening = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", opening)
    opening = re.sub(r"^- \*\*(.*?)\.?\*\*.*$", r"- \1", opening, flags=re.MULTILINE)
    blocks = re.findall(r"^## .*$|(?:^- .*\n?)+|(?:^\|.*\n?)+", opening, flags=re.MULTILINE)
    return "\n\n".join(_aligned(block.strip()) for block in blocks)


def _aligned(block: str) -> str:
    """Return a Markdown table with columns as wide as their cells; anything else as it is."""
    if not block.startswith("|"):
        return block
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
    cells = [row for row in rows if not all(re.fullmatch(":?-+:?", cell) for cell in row)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
