"""The command line: thin. It parses, calls the road or the store, and renders."""

from __future__ import annotations

import io
import os
import sys


def main() -> None:
    """Run the command line; every MeltbenchError becomes one line on stderr and its exit status."""
    _mend_streams()
    if sys.argv[1:] in (["--help"], ["-h"]):
        _first_page()
        return
    from meltbench.cli.app import app
    from meltbench.errors import InternalError, MeltbenchError

    try:
        app(standalone_mode=True)
    except MeltbenchError as error:
        _complain(str(error))
        sys.exit(error.exit_code)
    except OSError as error:
        _complain(f"{error.filename or 'output'}: {error.strerror or error}")
        sys.exit(1)
    except KeyboardInterrupt:
        _complain("interrupted; nothing was running")
        sys.exit(130)
    except Exception as error:
        if os.environ.get("MELTBENCH_DEBUG"):
            raise
        place = _place(error)
        _complain(f"internal error: {type(error).__name__}: {error} ({place}); report it with MELTBENCH_DEBUG=1 set")
        sys.exit(InternalError.exit_code)
    finally:
        import signal

        # What is left is Python's own end: a Ctrl-C could only litter it with tracebacks.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _first_page() -> None:
    """Print the help of ``meltbench`` itself as it was recorded: to make it takes ten times as long.

    A test holds the page to what the commands say of themselves.
    """
    try:
        with open(os.path.join(os.path.dirname(__file__), "help.txt"), encoding="utf-8") as page:
            sys.stdout.write(page.read())
        sys.stdout.flush()
    except OSError as error:
        _complain(f"{error.filename or 'output'}: {error.strerror or error}")
        sys.exit(1)


def _mend_streams() -> None:
    """A stream that was closed takes everything; one that cannot encode a character shows its escape instead."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  for as long as we live
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "?" if trace is None else f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"


def _complain(text: str) -> None:
    from meltbench.targets import printable

    print(f"meltbench: {printable(text.replace(chr(10), ' '))}", file=sys.stderr)  # noqa: T201
