"""The demo's model and data: a small CNN on scikit-learn's digits, which are real and come with it.

`python -P -m sparring.workers.digits FOLDER` writes digits.pt2 and digits.npz (the test split) and prints one JSON line.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from sparring.defenses.fit import fit

EPOCHS = 15


def network() -> nn.Module:
    """(B, 1, 8, 8) in [0, 1] -> logits (B, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def main() -> None:
    """Train, export, save."""
    parser = argparse.ArgumentParser(prog="sparring.workers.digits", description="Train the demo's model.")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = load_digits(return_X_y=True)
    stored = np.rint(images * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    x, x_test, y, y_test = train_test_split(stored, labels.astype(np.int64), test_size=0.2, random_state=0, stratify=labels)
    torch.manual_seed(0)
    model = network()
    rows = torch.from_numpy(x).float() / 255
    for epoch, loss in enumerate(fit(model, rows, torch.from_numpy(y), epochs=EPOCHS), 1):
        print(f"epoch {epoch}/{EPOCHS}: loss {loss:.4f} nats", file=sys.stderr)
    dynamic = ({0: torch.export.Dim("batch", min=1, max=4096)},)
    torch.export.save(torch.export.export(model, (rows[:2],), dynamic_shapes=dynamic, strict=False), folder / "digits.pt2")
    np.savez(folder / "digits.npz", x=x_test, y=y_test)
    with torch.no_grad():
        right = int((model(torch.from_numpy(x_test).float() / 255).argmax(1).numpy() == y_test).sum())
    print(json.dumps({"model": str(folder / "digits.pt2"), "data": str(folder / "digits.npz"), "right": right, "rows": len(y_test)}))


if __name__ == "__main__":
    main()
