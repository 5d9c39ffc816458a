"""How a job names what was uploaded."""

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

REF = r"^(sha256:)?[0-9a-f]{64}$|^(mdl|dat)_[0-9a-z]{20}$"
JOB_REF = r"^job_[0-9a-z]{20}$"

Ref = Annotated[str, Field(pattern=REF)]
"""An id (`mdl_…`, `dat_…`) or the sha256 of what was uploaded; with a sha256 the newest upload of those bytes is meant."""

JobRef = Annotated[str, Field(pattern=JOB_REF)]
"""The id of a job."""


class Need(NamedTuple):
    """An upload that a job needs beside its model and its data."""

    kind: Literal["model", "dataset"]
    ref: str
    pointer: str
    """Where the job names it, as a JSON pointer."""
