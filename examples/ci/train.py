"""How the models of this example were made: `python train.py` writes models/ anew, in some seconds.

Two small networks on scikit-learn's digits: `weak` is trained plainly, `robust` against PGD.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from sparring.contract.defenses import PGDTraining, Plain, Training
from sparring.defenses.data import in_memory
from sparring.defenses.training import train

MODELS = Path(__file__).parent / "models"
EPS = 0.1
RECIPES = {"weak": (Plain(), 60), "robust": (PGDTraining(norm="linf", eps=EPS, steps=7), 25)}
"""Defense and epochs."""


def main() -> None:
    """Train and save."""
    images, labels = load_digits(return_X_y=True)
    stored = np.rint(images * 255 / 16).astype(np.uint8)
    x, x_test, y, y_test = train_test_split(stored, labels.astype(np.int64), test_size=0.2, random_state=0, stratify=labels)
    data = in_memory(torch.from_numpy(x).float() / 255, torch.from_numpy(y))
    MODELS.mkdir(exist_ok=True)
    for name, (defense, epochs) in RECIPES.items():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
        for progress in train(model, defense, data, Training(epochs=epochs, rate=0.005, monitor=0)):
            print(f"{name}: epoch {progress.epoch} of {progress.epochs}, loss {progress.loss:.3f}")
        save_file(model.state_dict(), MODELS / f"{name}.safetensors")
    np.savez_compressed(MODELS / "digits.npz", x=x_test, y=y_test)


if __name__ == "__main__":
    main()
