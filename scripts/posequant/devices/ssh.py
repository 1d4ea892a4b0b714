"""A device that is reached by OpenSSH's own program: the user's configuration, keys and jump hosts hold.

What is done there, `runner.py` does, which is copied first. Its answers come as lines of JSON, and files behind them.
"""

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO, Any

from posequant.base.errors import InputError
from posequant.base.files import sha256, whole
from posequant.base.verify import installed
from posequant.devices import RUNNER
from posequant.devices.runner import GREETING
from posequant.workflow.settings.devices import Device

# How long to wait before each new try after the connection was lost, in seconds.
PAUSES = (2.0, 5.0, 15.0, 30.0, 60.0)
# A device that does not answer for a minute is lost. These hold in place of what ~/.ssh/config says of the same;
# `ssh_options` of a device come before them and hold.
_OPTIONS = ("-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4")
# Words of the runner, by which it is known.
_OURS = GREETING.split()[0]
# Exit statuses: of ssh where it fails itself; of a shell that finds no such program; sysexits.h's EX_CANTCREAT.
_SSH_FAILED, _NOT_FOUND, _CANNOT_WRITE = 255, 127, 73
_LAST_LINES = 12
_UNREACHABLE = re.compile(
    r"resolve hostname|name or service not known|connection refused|timed out|no route|unreachable", re.IGNORECASE
)
# A file among the pieces of a job that says that all are here.
_DONE = ".done"
_PIECE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class _LostError(Exception):
    """The connection was lost, or could not be made; the message has ssh's words."""


@dataclass(frozen=True)
class Job:
    """What a device is to run: the archive of a model's networks, and the crops of people."""

    networks: Path
    people: Path

    def name(self, options: Sequence[str]) -> str:
        """Return by what the job, done with some options of the runner, is known again."""
        content = json.dumps([sha256(self.networks), sha256(self.people), *options, sha256(RUNNER)])
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def measure_jobs(board: "Board", jobs: Mapping[str, Job], target: Path) -> None:
    """Have jobs done, one after the other, and write the results into a folder.

    Args:
        board: the device.
        jobs: by the names of their models.
        target: the folder to write, with `MODEL.zip` for each. On the way, pieces are in the folder `.TARGET.pieces`
            beside it, from which it goes on after an interruption.

    Raises:
        InputError: as `Board.measure`.
    """
    pieces = target.with_name(f".{target.name}.pieces")
    done = {model: board.measure(job, pieces) for model, job in jobs.items()}
    with whole(target) as draft:
        draft.mkdir()
        for model, folder in done.items():
            with zipfile.ZipFile(draft / f"{model}.zip", "w", zipfile.ZIP_STORED) as archive:
                for name in _names(folder):
                    archive.writestr(zipfile.ZipInfo(name), (folder / name).read_bytes())
    shutil.rmtree(pieces)
    if not board.keeps:
        try:
            board.remove()
        except InputError as error:
            # The results are here, and an error would make them worthless.
            _say(f"notice: {error} The runner and its environment are left there.")


class Board:
    """A device of the configuration that is reached over ssh."""

    def __init__(self, name: str, settings: Device, pauses: Sequence[float] = PAUSES) -> None:
        """Take its name, its settings, and how long to wait before each new try, in seconds.

        Raises:
            InputError: its settings do not say where it is.
        """
        if settings.ssh is None:
            raise InputError(f"device {name}: has no key `ssh`. Start the runner there by hand (docs/devices.md).")
        self.name = name
        self.keeps = settings.keep
        self._host = settings.ssh
        self._settings = settings
        self._pauses = pauses
        self._reached = False

    def facts(self) -> dict[str, Any]:
        """Return what the device is, as `runner.py` tells it; it needs nothing but Python there.

        Raises:
            InputError: it cannot be reached, or has no Python.
        """
        with self._once():
            return self._facts()

    def measure(self, job: Job, folder: Path) -> Path:
        """Have a job done, and bring its pieces here as they are finished.

        After a lost connection it goes on: what is here is not sent again, and what is done there is not done again.
        Where all pieces are here, the device is not asked.

        Args:
            job: what to do.
            folder: where the pieces are kept.

        Returns:
            The folder in it that has the pieces of the job. What is hidden in it is none of them.

        Raises:
            InputError: the device cannot be reached or was lost for too long, another run is at work there, or
                something is missing there; the message says what.
        """
        name, failures = job.name(self._options), 0
        pieces = folder / name
        pieces.mkdir(parents=True, exist_ok=True)
        while not (pieces / _DONE).exists():
            before = len(_names(pieces))
            try:
                self._install(name)
                self._send(job, name)
                self._take(name, pieces)
            except _LostError as lost:
                if (pieces / _DONE).exists():
                    _say(f"notice: device {self.name}: {self._settings.folder}/jobs/{name} may be left there ({lost}).")
                    break
                self._refuse_unreached(lost)
                failures = 0 if len(_names(pieces)) > before else failures
                if failures == len(self._pauses):
                    raise InputError(
                        f"device {self.name}: the connection was lost, and {failures} new tries failed ({lost}). "
                        "Run the same command again: it goes on from here."
                    ) from lost
                _say(f"device {self.name}: the connection was lost ({lost}); try {failures + 1} to go on")
                time.sleep(self._pauses[failures])
                failures += 1
        return pieces

    def remove(self) -> None:
        """Remove from the device all that is PoseQuant's, and nothing else.

        Raises:
            InputError: it cannot be reached, or has jobs that are not finished.
        """
        with self._once(), self._session(f"{self._python} {self._runner} --remove {self._folder}") as session:
            session.rest()

    @property
    def _options(self) -> list[str]:
        """The runner's options."""
        told = {name: getattr(self._settings, name) for name in ("threads", "rounds", "seconds", "cool")}
        words = [word for name, value in told.items() if value is not None for word in (f"--{name}", str(value))]
        return words if self._settings.latency else [*words, "--no-latency"]

    @property
    def _folder(self) -> str:
        """The folder there, as a word of the shell."""
        return _word(self._settings.folder)

    @property
    def _runner(self) -> str:
        return f"{self._folder}/runner.py"

    @property
    def _python(self) -> str:
        """The Python there that the runner starts with, as a word of the shell."""
        return _word(self._settings.python or "python3")

    def _facts(self, job: str = "") -> dict[str, Any]:
        with self._runner_put(f"{self._python} {self._runner} --facts", job) as session:
            text = session.rest().decode(errors="replace")
        # The shell there may have printed something before.
        facts: dict[str, Any] = json.loads(text[text.index("{\n") :])
        return facts

    def _install(self, job: str) -> None:
        """Have the runner there, and a Python that has numpy and ncnn."""
        if not self._settings.python:
            packages = shlex.join(_requirements(installed("numpy", "ncnn")))
            options = f"--install {self._folder}/venv --requirements {packages} --job {job}"
            with self._runner_put(f"{self._python} {self._runner} {options}", job) as session:
                session.rest()
            return
        missing = {"numpy", "ncnn"} - self._facts(job)["versions"].keys()
        if missing:
            raise InputError(
                f"device {self.name}: {self._settings.python} has no {' and no '.join(sorted(missing))} there. Install "
                f"what is missing, or leave devices.{self.name}.python out: then an environment is made there."
            )

    def _send(self, job: Job, name: str) -> None:
        """Have the files of a job there."""
        files = {"networks.zip": job.networks, "people.npz": job.people}
        listed = [{"name": key, "size": path.stat().st_size, "sha256": sha256(path)} for key, path in files.items()]
        with self._runner_started(f"--receive {self._folder}/jobs/{name} --job {name}") as session:
            session.send(listed)
            for missing in session.heard():
                _say(f"device {self.name}: sending {files[missing]}")
                session.send_file(files[missing])
            session.heard()

    def _take(self, name: str, pieces: Path) -> None:
        """Have a job done, and take its pieces."""
        folder = f"{self._folder}/jobs/{name}"
        files = f"--package {folder}/networks.zip --people {folder}/people.npz"
        options = f"--attached {folder} --job {name} {files} {shlex.join(self._options)}"
        with self._runner_started(options) as session:
            session.send(_names(pieces))
            while (answer := session.heard()) != "all":
                piece, content = answer["piece"], session.read(answer["size"])
                if hashlib.sha256(content).hexdigest() != answer["sha256"] or not _PIECE.fullmatch(piece):
                    raise InputError(f"device {self.name}: {piece} arrived damaged. Run the same command again.")
                with whole(pieces / piece) as draft:
                    draft.write_bytes(content)
            # From here on nothing is to be done again: the device is about to forget the job.
            (pieces / _DONE).touch()
            session.send("taken")
            unfinished = session.heard()
        if unfinished:
            _say(
                f"notice: device {self.name}: {len(unfinished)} jobs that were not finished are left in "
                f"{self._settings.folder}/jobs: {', '.join(unfinished)}. Remove those that nobody goes on with."
            )

    @contextmanager
    def _runner_put(self, then: str, job: str = "") -> Iterator["_Session"]:
        """Write the runner there, and go on with another command, which reads nothing.

        The folder of the job, if one is named, is made first: while it is there, nobody removes the runner.
        """
        folder = self._folder
        of_job = f"{folder}/jobs/{job}" if job else folder
        script = (
            "umask 077\n"
            f"if [ -e {self._runner} ] && ! grep -q {_OURS} {self._runner}; then\n"
            f"  echo {self._runner} is there already, and is not of PoseQuant >&2; exit {_CANNOT_WRITE}\n"
            "fi\n"
            f"mkdir -p {of_job} && cat > {folder}/runner.$$ && mv {folder}/runner.$$ {self._runner} ||"
            f" {{ rm -f {folder}/runner.$$; exit {_CANNOT_WRITE}; }}\n"
            f"command -v {self._python} > /dev/null || exit {_NOT_FOUND}\n"
            f"{then} < /dev/null"
        )
        with self._session(script) as session:
            session.send_file(RUNNER)
            session.close()
            yield session

    @contextmanager
    def _runner_started(self, options: str) -> Iterator["_Session"]:
        """Start the runner in the Python that has all it needs; what a shell prints at its start is passed over."""
        python = self._python if self._settings.python else f"{self._folder}/venv/bin/python"
        with self._session(f"{python} {self._runner} {options}") as session:
            session.pass_greeting()
            yield session

    @contextmanager
    def _session(self, script: str) -> Iterator["_Session"]:
        """Run a script of the shell there; where it fails, say why."""
        # Its status is told even where a signal ends its last command: the shell must not become that command.
        command = shlex.join(["sh", "-c", f"{script}\nexit $?"])
        options = ["-T", "-o", "BatchMode=yes", *self._settings.ssh_options, *_OPTIONS]
        session = _Session(["ssh", *options, "--", self._host, command])
        try:
            yield session
        except (BrokenPipeError, EOFError) as error:
            # It has ended before its time. Why, its status and its last words say.
            self._judge(session.end(), session.words)
            raise _LostError("it ended before its time") from error
        finally:
            status = session.end()
        self._judge(status, session.words)
        self._reached = True

    def _judge(self, status: int, words: Sequence[str]) -> None:
        """Raise what the end of a session means, unless it was a good one."""
        where, text = f"device {self.name}", "\n".join(words)
        if status == 0:
            return
        if status == _SSH_FAILED or status < 0:
            if reason := _ssh_says(text, self._host):
                raise InputError(f"{where}: {reason}")
            raise _LostError(words[-1] if words else "ssh says nothing")
        if status == _CANNOT_WRITE:
            raise InputError(
                f"{where}: {self._settings.folder} cannot be written there ({text}). Make space, or name another "
                f"folder by devices.{self.name}.folder."
            )
        if status == _NOT_FOUND:
            raise InputError(
                f"{where}: there is no {self._settings.python or 'python3'} there. Install Python 3.8 or later, or "
                f"name it by devices.{self.name}.python."
            )
        if status > 128:
            raise InputError(
                f"{where}: the runner was ended there by signal {status - 128}, perhaps for lack of memory. Run the "
                f"same command again: it goes on from here. Its last words:\n{text}"
            )
        raise InputError(f"{where}: {_last_error(words)}")

    @contextmanager
    def _once(self) -> Iterator[None]:
        """Do something that is not tried again."""
        try:
            yield
        except _LostError as lost:
            self._refuse_unreached(lost)
            message = f"device {self.name}: the connection was lost ({lost}). Run the same command again."
            raise InputError(message) from lost

    def _refuse_unreached(self, lost: _LostError) -> None:
        if not self._reached and _UNREACHABLE.search(str(lost)):
            raise InputError(
                f"device {self.name}: {self._host} cannot be reached ({lost}). Is it on, and does `ssh {self._host}` "
                "find it?"
            ) from lost


class _Session:
    """A run of ssh: what goes in, what comes out, and its last words."""

    def __init__(self, command: Sequence[str]) -> None:
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except FileNotFoundError as error:
            raise InputError("there is no program ssh here. Install OpenSSH's client.") from error
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        streams = (self._process.stdin, self._process.stdout, self._process.stderr)
        self._in, self._out, words = (stream for stream in streams if stream)
        self._listener = Thread(target=self._listen, args=(words,), daemon=True)
        self._listener.start()

    @property
    def words(self) -> list[str]:
        """The last lines of what it wrote to its standard error."""
        return list(self._last)

    def _listen(self, stream: IO[bytes]) -> None:
        for line in stream:
            text = line.decode(errors="replace").rstrip()
            self._last.append(text)
            _say(text)

    def pass_greeting(self) -> None:
        """Pass over all before the runner's greeting, and over that."""
        while (line := self._out.readline()).strip() != GREETING.encode():
            if not line:
                raise EOFError

    def send(self, content: Any) -> None:
        """Send a line of JSON."""
        self._in.write(json.dumps(content).encode() + b"\n")
        self._in.flush()

    def send_file(self, path: Path) -> None:
        """Send a file's content."""
        with path.open("rb") as stream:
            shutil.copyfileobj(stream, self._in, 1 << 20)
        self._in.flush()

    def close(self) -> None:
        """Say that nothing more is sent."""
        with suppress(BrokenPipeError):
            self._in.close()

    def heard(self) -> Any:
        """Return the next line of JSON; `EOFError` where there is none."""
        line = self._out.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return json.loads(line)

    def read(self, size: int) -> bytes:
        """Return the next so many bytes; `EOFError` where there are fewer."""
        content = self._out.read(size)
        if len(content) < size:
            raise EOFError
        return content

    def rest(self) -> bytes:
        """Return all that comes until the end."""
        return self._out.read()

    def end(self) -> int:
        """Close it, and return its exit status."""
        self.close()
        try:
            # The runner ends with the connection. What hangs is not waited for.
            status = self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._listener.join(timeout=5)
        self._out.close()
        return status


def _ssh_says(text: str, host: str) -> str:
    """Return what is wrong and what to do, by ssh's words; nothing where trying again may help."""
    if "has changed and you have requested strict checking" in text:
        return (
            "its host key is another than the one that is known here. If it was set up anew, forget the old key "
            f"(ssh-keygen -R HOST), connect once by hand (ssh {host}) and compare the fingerprint. ssh says:\n{text}"
        )
    if "Host key verification failed" in text or "host key is known" in text:
        return (
            f"its host key is not known here. Connect once by hand (ssh {host}), and compare the fingerprint before "
            "you accept it."
        )
    if "Permission denied (" in text or "Too many authentication failures" in text:
        return (
            f"it accepts no key of yours, and no password is asked for. Copy your key there (ssh-copy-id {host}), or "
            f"unlock it (ssh-add). ssh says: {text.splitlines()[-1]}"
        )
    if "Bad configuration option" in text or "Bad owner or permissions" in text or "unknown option" in text:
        return f"ssh does not start. It says:\n{text}"
    return ""


def _last_error(words: Sequence[str]) -> str:
    """Return the runner's message, which is the last that begins with `error:`; all words where there is none."""
    starts = [place for place, line in enumerate(words) if line.startswith("error: ")]
    text = "\n".join(words[starts[-1] :] if starts else words)
    return text.removeprefix("error: ") or "it fails there, and says nothing"


def _word(path: str) -> str:
    """Return a path there as a word of the shell."""
    return '"$HOME"/' + shlex.quote(path[2:]) if path.startswith("~/") else shlex.quote(path)


def _requirements(versions: Mapping[str, str]) -> list[str]:
    """Return what pip installs there: what is here, or what there is for a Python that is older."""
    return [
        f'ncnn=={versions["ncnn"]}; python_version >= "3.9"',
        'ncnn; python_version < "3.9"',
        f'numpy=={versions["numpy"]}; python_version >= "3.11"',
        'numpy; python_version < "3.11"',
    ]


def _names(pieces: Path) -> list[str]:
    """Return the names of the pieces that are here."""
    return sorted(path.name for path in pieces.iterdir() if not path.name.startswith("."))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
