"""The models under attack are trained on points inside the ball and the box."""

import torch
from models import SUBJECTS, Training, one_step, train
from torch import nn

from sparring.workers.zoo import Mlp


def test_every_subject_is_built_as_its_architecture_says() -> None:
    for name, subject in SUBJECTS.items():
        assert type(subject.network()).__name__.lower() == subject.arch, name


def test_the_step_raises_the_loss_inside_ball_and_box() -> None:
    torch.manual_seed(0)
    model, x, y = Mlp({"0": (8, 3, True)}), torch.rand(50, 8), torch.randint(3, (50,))
    moved = one_step(model, x, y, 0.1)
    assert (moved - x).abs().max() <= 0.1 + 1e-6
    assert moved.min() >= 0
    assert moved.max() <= 1
    loss = nn.CrossEntropyLoss(reduction="none")
    assert (loss(model(moved), y) > loss(model(x), y)).float().mean() > 0.9


def test_training_learns_and_ends_in_evaluation_mode() -> None:
    torch.manual_seed(0)
    x = torch.rand(256, 2)
    y = (x[:, 0] > x[:, 1]).long()
    model = Mlp({"0": (2, 16, True), "1": (16, 2, True)})
    train(model, x, y, Training(256, 20, eps=0.01, rate=0.02, batch=32, warm_up=True))
    assert not model.training
    assert (model(x).argmax(1) == y).float().mean() > 0.9
