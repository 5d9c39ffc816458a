"""The `sparring` command. Exit codes: 0 done, 2 it could not be done, 4 bad usage, 130 interrupted."""

import signal
import sys
from typing import NoReturn

from sparring.errors import ApiError, SparringError, UsageProblem

INTERRUPTED = 128 + signal.SIGINT


def _terminated(_number: int, _frame: object) -> NoReturn:
    # An exception, so that what was started is taken down on the way out.
    raise SystemExit(128 + signal.SIGTERM)


def _complain(error: SparringError) -> None:
    from sparring.local import key_hint
    from sparring.show import say

    say(f"error: {error}")
    if hint := key_hint() if isinstance(error, ApiError) and error.status == 401 else error.hint:
        say(f"  {hint}")


def main() -> NoReturn:
    """Run the command line and end the process."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        # Here, so that Ctrl-C ends the command quietly from its first moment on.
        from sparring.commands.root import app

        app()
    except SparringError as error:
        _complain(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except SystemExit as ended:
        # The parser's own code for bad usage is 2, which here means that no report could be made.
        sys.exit(UsageProblem.exit_code if ended.code == SparringError.exit_code else ended.code)
    raise SystemExit
