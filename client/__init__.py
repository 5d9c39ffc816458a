"""Sparring: robustness evaluation and attack service.

`sparring.Client` is the Python SDK, `sparring.errors` what it raises.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparring.sdk import Client

try:
    __version__ = version("sparring")
except PackageNotFoundError:  # a tree that was never installed
    __version__ = "0"

__all__ = ["Client", "__version__"]


def __getattr__(name: str) -> object:
    """Loads the SDK when it is first asked for, so that `import sparring` stays light for workers and service."""
    if name == "Client":
        from sparring.sdk import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
