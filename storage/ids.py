"""Identifiers: a prefix that says of what, and 20 random characters."""

import secrets
from typing import Literal

_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"


def new_id(kind: Literal["mdl", "dat", "job", "key", "gat", "bas", "whk", "msg"]) -> str:
    """A fresh id such as `job_` and 20 characters of `[0-9a-z]` (103 bits)."""
    return f"{kind}_{''.join(secrets.choice(_LETTERS) for _ in range(20))}"
