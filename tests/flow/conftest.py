"""One stack with a model and data in it for all faults."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from flow.stack import Stack, stack
from workers.orders import digits, export, network, trained


class Ready(NamedTuple):
    stack: Stack
    model: str
    data: str
    files: Path


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    folder = tmp_path_factory.mktemp("flow")
    export(trained(network()), folder / "model.pt2")
    x, y = digits()
    np.savez(folder / "data.npz", x=x[:640], y=y[:640])
    with stack(folder / "data") as running:
        model = running.client.models.upload(folder / "model.pt2").id
        data = running.client.datasets.upload(folder / "data.npz").id
        yield Ready(running, model, data, folder)
