"""How a run ends that is asked to."""

import signal


def end_on_sigterm() -> None:
    """Let SIGTERM end this process as Ctrl-C does, and the jobs that it runs here with it.

    Snakemake by itself would wait for the running jobs. Ctrl-C on a terminal reaches the jobs, too; a signal to
    Snakemake alone does not.
    """
    signal.signal(signal.SIGTERM, _end)


def _end(number: int, _: object) -> None:
    import psutil

    # Once: a second signal would interrupt the cleaning up.
    signal.signal(number, signal.SIG_IGN)
    for process in psutil.Process().children(recursive=True):
        try:
            process.terminate()
        except psutil.NoSuchProcess:
            continue
    raise KeyboardInterrupt
