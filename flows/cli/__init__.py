"""The command line: `fedpatch --help`. Each command imports what it needs when it runs, so that help comes at once."""

from __future__ import annotations

import gc
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from typing import Any

from cyclopts import CycloptsError

from data_contracts.errors import FedpatchError
from flows.cli.dataset import commands as dataset_commands  # noqa: F401 (they register commands)
from flows.cli.experiment import commands as experiment_commands  # noqa: F401 (they register commands)
from flows.cli.options import app, fail
from flows.cli.upkeep import commands as upkeep_commands  # noqa: F401 (they register commands)

__all__ = ["app", "main"]

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
DEBUG_FLAG = "--debug"
READER_GONE = 128 + 13
SPEAKING = ("pipeline_lib.dataset", "pipeline_lib.inspection")
if DEBUG_FLAG not in sys.argv:  # the error line sums up what Prefect would print with tracebacks; its UI has all of it
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    warnings.filterwarnings("ignore", "Failed to create the Prefect home directory")  # what needs it says so


class _Warnings(logging.Handler):
    """Prints what the library says of images and directories; Prefect's configuration of logging would keep it back."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"fedpatch: {record.getMessage()}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> Any:
    """Entry point. Exit status 0, 1 with one line on stderr, or 2 for wrong usage; `--debug` shows the traceback.

    A reader that has seen enough, as `| head`, ends it quietly, with the status that SIGPIPE gives other commands.
    """
    try:
        try:
            _call(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError as error:
        try:
            print(flush=True)  # whether it was stdout, and no other pipe
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor does Python say so at its end
            raise SystemExit(READER_GONE) from None
        fail(f"{type(error).__name__}: {error}")


def _call(arguments: Sequence[str] | None) -> None:
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    debug = DEBUG_FLAG in tokens
    tokens = [token for token in tokens if token != DEBUG_FLAG]
    owns_process = arguments is None
    if owns_process:
        gc.set_threshold(100_000, 20, 20)  # the imports make a million objects that stay; no need to go through them
    warnings = _Warnings(logging.WARNING)
    for name in SPEAKING:
        logging.getLogger(name).addHandler(warnings)
    try:
        app(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        print(f"fedpatch: {' '.join(str(error).split())} (see fedpatch --help)", file=sys.stderr)
        raise SystemExit(2) from None
    except FedpatchError as error:
        if debug:
            raise
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted; run the same command again to go on from what is finished")
    except BrokenExecutor:
        if debug:
            raise
        fail("a worker process was killed; run the same command again to go on from what is finished")
    except BrokenPipeError:
        raise
    except (OSError, MemoryError) as error:
        if debug:
            raise
        fail(f"{type(error).__name__}: {error}")
    except Exception as error:
        if debug or not (cause := _lost_server(error)):
            raise
        fail(f"{cause}; run the same command again to go on from what is finished")
    finally:
        for name in SPEAKING:
            logging.getLogger(name).removeHandler(warnings)
        if owns_process:
            gc.freeze()  # nor at Python's end


def _lost_server(error: BaseException) -> str | None:
    """What is wrong with Prefect's server where that is what ended the command: Prefect raises anything then."""
    if "prefect.client" not in sys.modules:
        return None
    import httpx

    from flows.connection import no_answer

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, httpx.TransportError | httpx.HTTPStatusError):
            return f"PREFECT_API_URL: {no_answer(cause)}"
        cause = cause.__cause__ or cause.__context__
    return None


if __name__ == "__main__":
    main()
