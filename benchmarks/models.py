"""What the benchmarks attack: models trained here, briefly and adversarially, and test rows as the tools get them.

`python models.py NAME …` trains what is not in the cache yet. Its weights lie in benchmarks/.cache, named after the recipe, so that a
changed recipe is a new model. Real data are read from the folder named by SPARRING_TEST_DATA.
"""

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from sparring.contract.specs import Arch
from sparring.workers.spare import environment
from sparring.workers.zoo import LeNet5, Mlp, ResNet18

CACHE = Path(__file__).parent / ".cache"
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Rows(NamedTuple):
    """Training and test rows: float32 in [0, 1], (rows, channels, height, width); labels int64."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    test_x: NDArray[np.float32]
    test_y: NDArray[np.int64]


class Training(NamedTuple):
    """A recipe: Adam with one cosine cycle; with `eps` each batch is first moved by one random FGSM step (Fast-AT)."""

    rows: int
    """The first so many training rows."""
    epochs: int
    eps: float = 0.0
    rate: float = 2e-3
    batch: int = 128
    warm_up: bool = False
    """eps grows from 0 over the first half of the steps."""


class Subject(NamedTuple):
    """A model under attack, and how far the attacker may go in linf."""

    arch: Arch
    network: Callable[[], nn.Module]
    rows: Callable[[], Rows]
    training: Training
    eps: float
    about: str


def data_folder() -> Path:
    """The folder of real data. Raises SystemExit where there is none."""
    folder = Path(os.environ.get("SPARRING_TEST_DATA", "unset"))
    if not folder.is_dir():
        raise SystemExit(f"No real data: {folder} is no folder. Set SPARRING_TEST_DATA to one with fashion_mnist/, mnist/ and cifar10_*/.")
    return folder


def _idx(path: Path, header: int) -> NDArray[np.uint8]:
    return np.frombuffer(gzip.decompress(path.read_bytes())[header:], np.uint8)


def _mnist(name: str) -> Rows:
    folder = data_folder() / name
    train, test = (_unit(_idx(folder / f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)) for part in ("train", "t10k"))
    y, test_y = (_idx(folder / f"{part}-labels-idx1-ubyte.gz", 8).astype(np.int64) for part in ("train", "t10k"))
    return Rows(train, y, test, test_y)


def _cifar10(per_class: int = 1000) -> Rows:
    """Training rows are recompressed pictures, shuffled; test rows the exact ones."""
    images, labels, seen = [], [], Counter[str]()
    with tarfile.open(data_folder() / "cifar10_jpeg" / "cifar10_jpeg.tar.xz") as archive:
        for member in archive:
            parts = member.name.split("/")
            if "train" not in parts or not member.isfile() or seen[parts[-2]] == per_class:
                continue
            file = archive.extractfile(member)
            assert file is not None
            images.append(np.asarray(Image.open(io.BytesIO(file.read()))))
            labels.append(CIFAR10.index(parts[-2]))
            seen[parts[-2]] += 1
    order = np.random.default_rng(0).permutation(len(images))
    with np.load(data_folder() / "cifar10_lossless_subset" / "cifar10_test_subset_uint8.npz") as test:
        return Rows(
            _unit(np.stack(images).transpose(0, 3, 1, 2)[order]),
            np.array(labels)[order],
            _unit(test["X"].transpose(0, 3, 1, 2)),
            test["y"].astype(np.int64),
        )


def _digits() -> Rows:
    images, labels = load_digits(return_X_y=True)
    x = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    train_x, test_x, y, test_y = train_test_split(x, labels.astype(np.int64), test_size=0.2, random_state=0, stratify=labels)
    return Rows(train_x, y, test_x, test_y)


def _unit(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.ascontiguousarray((images / 255).astype(np.float32))


def _lenet5() -> nn.Module:
    return LeNet5((1, 32, 64), 3136, 200, 10)


def _mlp() -> nn.Module:
    return Mlp({"0": (64, 256, True), "1": (256, 256, True), "2": (256, 10, True)})


SUBJECTS = {
    "fashion": Subject(
        "lenet5", _lenet5, lambda: _mnist("fashion_mnist"), Training(20_000, 3, eps=0.1), 0.17, "LeNet-5, Fast-AT on Fashion-MNIST"
    ),
    "mnist": Subject("lenet5", _lenet5, lambda: _mnist("mnist"), Training(20_000, 3, eps=0.1), 0.05, "LeNet-5, Fast-AT on MNIST"),
    "resnet18": Subject(
        "resnet18",
        lambda: ResNet18(3, 16, 10),
        _cifar10,
        Training(8000, 3, eps=2 / 255, rate=2e-3, batch=64, warm_up=True),
        2 / 255,
        "ResNet-18 of width 16, Fast-AT on CIFAR-10",
    ),
    "digits": Subject("mlp", _mlp, _digits, Training(1437, 60, rate=1e-3, batch=64), 0.1, "MLP 64-256-256-10, plain training on digits"),
}
"""eps is chosen by measurement: about 30 % of the rows of `fashion` and `resnet18` hold, nearly all of `mnist`."""


class Ready(NamedTuple):
    """A subject on disk."""

    weights: Path
    """safetensors."""
    data: Path
    """npz: x (rows, …) float32 in [0, 1] and y, test rows in their order."""


def ready(name: str) -> Ready:
    """Weights and test rows of a subject, trained now unless they are in the cache."""
    found = _place(name)
    if not found.weights.exists():
        print(f"Training {name}: {SUBJECTS[name].about} (once; a few minutes)", flush=True)
        # in a process of its own, for the allocator settings of a runner
        settings = {key: value for key, value in environment().items() if key.startswith("MALLOC_")}
        subprocess.run([sys.executable, __file__, name], env=os.environ | settings, check=True)
    return found


def _place(name: str) -> Ready:
    subject = SUBJECTS[name]
    recipe = repr((subject.arch, subject.training, subject.about))
    stem = f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    return Ready(CACHE / f"{stem}.safetensors", CACHE / f"{stem}.npz")


def _prepare(name: str) -> None:
    subject, place = SUBJECTS[name], _place(name)
    rows = subject.rows()
    torch.manual_seed(0)
    model = subject.network()
    train(model, torch.from_numpy(rows.x), torch.from_numpy(rows.y), subject.training)
    CACHE.mkdir(exist_ok=True)
    np.savez(place.data, x=rows.test_x, y=rows.test_y)
    save_file(model.state_dict(), place.weights)


def train(model: nn.Module, x: Tensor, y: Tensor, recipe: Training) -> None:
    """Train in place; the model is left in evaluation mode. Wong, Rice, Kolter 2020, arXiv 2001.03994, with Adam."""
    x, y = x[: recipe.rows], y[: recipe.rows]
    steps = recipe.epochs * -(-len(x) // recipe.batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    done = 0
    for epoch in range(recipe.epochs):
        model.train()
        right = 0
        for index in torch.split(torch.randperm(len(x)), recipe.batch):
            eps = recipe.eps * (min(1.0, 2 * done / steps) if recipe.warm_up else 1.0)
            moved = one_step(model, x[index], y[index], eps) if eps else x[index]
            logits = model(moved)
            loss = nn.functional.cross_entropy(logits, y[index])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            done += 1
            right += int((logits.argmax(1) == y[index]).sum())
        print(f"  epoch {epoch + 1}/{recipe.epochs}: {100 * right / len(x):.1f} % right on the rows trained on, as moved", flush=True)
    model.eval()


def one_step(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """A random start in the ball, and one step of 1.25 eps along the sign of the gradient."""
    start = (x + torch.empty_like(x).uniform_(-eps, eps)).clamp(0, 1).requires_grad_()
    (grad,) = torch.autograd.grad(nn.functional.cross_entropy(model(start), y), start)
    moved = start.detach() + 1.25 * eps * grad.sign()
    return torch.clamp(x + (moved - x).clamp(-eps, eps), 0, 1)


if __name__ == "__main__":
    for given in sys.argv[1:]:
        _prepare(given)
