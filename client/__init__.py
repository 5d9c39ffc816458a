"""Sparring: robustness evaluation and attack service.

`sparring.Client` is the Python SDK, `sparring.errors` what it raises.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparring.sdk import Client

    __version__: str

__all__ = ["Client", "__version__"]


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("sparring")
    except PackageNotFoundError:  # a tree that was never installed
        return "0"


def __getattr__(name: str) -> object:
    """Loads the SDK, and looks up the version, when they are first asked for: `import sparring` stays light for all of its parts."""
    if name == "__version__":
        return globals().setdefault(name, _version())
    if name == "Client":
        from sparring.sdk import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
