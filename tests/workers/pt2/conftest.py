"""Files every exploit and every lie is made from."""

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.workers.pt2 import nets


@pytest.fixture(scope="session")
def cnn() -> nets.Cnn:
    """A trained-looking model: its running statistics are not those of a fresh one."""
    torch.manual_seed(0)
    model = nets.Cnn().train()
    model(torch.rand(16, *model.shape))
    return model.eval()


@pytest.fixture(scope="session")
def exported(cnn: nets.Cnn, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a .pt2."""
    return nets.write(cnn, tmp_path_factory.mktemp("exported") / "cnn.pt2")


@pytest.fixture
def sound(exported: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may spoil."""
    path = tmp_path / "sound.pt2"
    path.write_bytes(exported.read_bytes())
    return path


class Canary:
    """A folder that appears when something malicious runs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def code(self) -> str:
        return f"__import__('os').mkdir({str(self.path)!r})"

    def __reduce__(self):
        return os.mkdir, (str(self.path),)

    @property
    def pickled(self) -> bytes:
        return pickle.dumps(self)

    @property
    def untouched(self) -> bool:
        return not self.path.exists()


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    """Checked at the end of every test that asks for it, and proved alive there."""
    bird = Canary(tmp_path / "canary")
    yield bird
    assert bird.untouched
    pickle.loads(bird.pickled)
    assert not bird.untouched
