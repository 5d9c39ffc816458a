"""Fields that jobs of every kind have."""

from typing import Annotated, Literal

from pydantic import Field

from sparring.contract.quantity import NotBool

IDENT = r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}$"
SHA256 = r"^[0-9a-f]{64}$"

Seconds = Annotated[int, Field(ge=1, le=30 * 24 * 3600), NotBool]
Seed = Annotated[int, Field(ge=0, lt=2**63), NotBool]
Rows = Annotated[int, Field(ge=1), NotBool]
Where = Literal["auto", "cpu", "gpu"]
"""`auto`: a GPU worker when one is alive, else any."""
Ident = Annotated[str, Field(pattern=IDENT)]
"""A letter or digit, then letters, digits and `_ . -`, at most 64 characters."""
Share = Annotated[float, Field(ge=0, le=1), NotBool]
"""A fraction of the rows."""
Samples = Annotated[int, Field(ge=1), NotBool]
Sha256 = Annotated[str, Field(pattern=SHA256)]
