import json
import subprocess
import sys

PROGRAM = """
import logging, structlog
from sparring.storage import logs
log = structlog.get_logger("ours")
logs.configure()
log.info("hello", job="job_1", path=__import__("pathlib").Path("/x"))
logging.getLogger("theirs").warning("watch %s", "out")
logging.getLogger("theirs").debug("not this")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("broken")
"""


def test_every_log_is_one_json_object_a_line_on_stderr() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    hello, watch, broken = (json.loads(line) for line in done.stderr.splitlines())
    assert (hello["event"], hello["level"], hello["logger"], hello["job"]) == ("hello", "info", "ours", "job_1")
    assert (watch["event"], watch["level"], watch["logger"]) == ("watch out", "warning", "theirs")
    assert "ZeroDivisionError" in broken["exception"]
    assert hello["timestamp"].endswith("Z")
