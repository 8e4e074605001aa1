"""A process that does one step on a store and kills itself at the nth thing Python asks of the system.

Reads lines "STEP ROOT RUN_ID N" from stdin, does each in a fork of its own so that imports are paid once, and
answers with how that ended: "killed", "done", or the error. N 0 never kills.
"""

from __future__ import annotations

import os
import signal
import sys

import duckdb  # noqa: F401 - imported before the forks
import pyarrow.parquet  # noqa: F401 - imported before the forks
from store_kit import TICKET, record_of

from meltbench.store import index, open_store

WATCHED = ("open", "os.", "shutil.")


def step(name: str, root: str, run_id: str) -> None:
    store = open_store(root)
    if name == "new_run":
        store.new_run(TICKET)
    elif name == "commit":
        store.commit(store.folder(run_id), record_of(run_id))
    elif name == "ingest":
        store.ingest(run_id)
    else:
        index.rebuild(store)


def child(name: str, root: str, run_id: str, n: int) -> None:
    left = n

    def hook(event: str, args: object) -> None:
        nonlocal left
        # Late imports open and list files as well; those are not the store's doing.
        if event.startswith("fcntl.") or (event.startswith(WATCHED) and root in str(args)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    step(name, root, run_id)


def main() -> None:
    for line in sys.stdin:
        name, root, run_id, n = line.split()
        pid = os.fork()
        if pid == 0:
            try:
                child(name, root, run_id, int(n))
            except BaseException as error:  # noqa: BLE001 - told to the parent by the exit status
                sys.stderr.write(f"{error!r}\n")
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        sys.stdout.write("killed\n" if killed else "done\n" if status == 0 else f"failed {status}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
