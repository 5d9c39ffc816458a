"""Fields that jobs of every kind have."""

from typing import Annotated, Literal

from pydantic import Field

from sparring.contract.quantity import NotBool

Seconds = Annotated[int, Field(ge=1, le=30 * 24 * 3600), NotBool]
Seed = Annotated[int, Field(ge=0, lt=2**63), NotBool]
Rows = Annotated[int, Field(ge=1), NotBool]
Where = Literal["auto", "cpu", "gpu"]
"""`auto`: a GPU worker when one is alive, else any."""
