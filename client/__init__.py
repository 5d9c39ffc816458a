"""Sparring: robustness evaluation and attack service."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("sparring")
except PackageNotFoundError:  # a tree that was never installed
    __version__ = "0"
