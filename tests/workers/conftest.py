"""Real models and data, where they are at hand."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Folder of published models and datasets, named by SPARRING_TEST_DATA."""
    folder = Path(os.environ.get("SPARRING_TEST_DATA", "unset"))
    if not (folder / "models").is_dir():
        pytest.skip(f"NO REAL DATA: {folder} has no folder models; set SPARRING_TEST_DATA. Published models were not tried")
    return folder


@pytest.fixture(scope="session")
def mnist_npz(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNIST's 10,000 test images as an upload: x (10000, 1, 28, 28) uint8, y."""
    images = gzip.decompress((realdata / "mnist" / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((realdata / "mnist" / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    path = tmp_path_factory.mktemp("mnist") / "mnist.npz"
    np.savez_compressed(path, x=np.frombuffer(images, np.uint8).reshape(-1, 1, 28, 28), y=np.frombuffer(labels, np.uint8))
    return path
