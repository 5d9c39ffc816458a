"""Settings of the service, the dispatcher and the workers: environment variables with the prefix SPARRING_."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def _data_home() -> Path:
    home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(home).expanduser() / "sparring"


class Settings(BaseSettings):
    """Where things are kept and how long they may take; every process of one installation is given the same."""

    model_config = SettingsConfigDict(env_prefix="SPARRING_", populate_by_name=True, frozen=True, use_attribute_docstrings=True)

    data: Path = Field(default_factory=_data_home)
    """Folder of everything that is kept on this machine."""
    database_url: str | None = None
    """SQLAlchemy URL of the records; SQLite inside `data` unless given."""
    redis_url: Annotated[str, Field(validation_alias=AliasChoices("SPARRING_REDIS_URL", "REDIS_URL"))] = "redis://127.0.0.1:6379/0"
    """URL of the queue; `unix://` is allowed."""
    max_upload: Annotated[int, Field(gt=0)] = 2 * 1024**3
    """Largest upload in bytes."""
    anonymous: bool = False
    """Serve requests without an API key."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8787
    lease: Annotated[float, Field(gt=0)] = 15.0
    """Seconds after its last sign of life at which a running job is taken from its worker."""
    beat: Annotated[float, Field(gt=0)] = 2.0
    """Seconds between two signs of life."""
    endpoints: Path | None = None
    """File that says which endpoints each project may have asked; `endpoints.json` inside `data` unless given."""
    max_attempts: Annotated[int, Field(ge=1)] = 5
    """Workers a job may lose before it fails."""

    @property
    def database(self) -> str:
        """URL of the records, resolved."""
        return self.database_url or f"sqlite:///{self.data / 'records.db'}"

    @property
    def grants(self) -> Path:
        """File of the endpoints that may be asked, resolved."""
        return self.endpoints or self.data / "endpoints.json"

    @property
    def artifacts(self) -> Path:
        """Folder of the content-addressed blobs."""
        return self.data / "artifacts"

    @property
    def work(self) -> Path:
        """Folder in which each job has a folder of its own, named by its id."""
        return self.data / "work"

    @property
    def cache(self) -> Path:
        """Folder of what can be made again, such as unpacked datasets."""
        return self.data / "cache"
