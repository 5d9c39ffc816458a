"""Models whose gradients mislead: what white-box attacks make of them is not what the report says of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from workers.orders import order, report, serve

from sparring.contract.report import Report
from sparring.contract.runner import Done
from workers import orders

ATTACKS = [{"kind": "fgsm"}, {"kind": "pgd", "steps": 10}, {"kind": "square", "queries": 300}]
ROWS = 150


class Quantised(nn.Module):
    """Inputs are rounded to seventeen levels, which passes no gradient back."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(torch.round(x * 16) / 16)


class Sharpened(nn.Module):
    """The logits of a model distilled at temperature 300 and used at 1: 300 times as large."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) * 300


def distilled() -> nn.Module:
    """Papernot et al. 2015, arXiv 1511.04508: a student of a teacher's soft labels, both at temperature 300."""
    x, y = orders.digits()
    rows, labels = torch.from_numpy(x).float() / 255, torch.from_numpy(y)

    def learnt(targets: torch.Tensor) -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        for _ in range(12):
            for batch in torch.randperm(len(rows)).split(64):
                # the network gives the logits over the temperature, so that the softmax at 1 is that at 300 of the logits
                loss = nn.functional.cross_entropy(model(rows[batch]), targets[batch])
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
        return model.eval()

    teacher = learnt(nn.functional.one_hot(labels, 10).float())
    with torch.no_grad():
        soft = teacher(rows).softmax(1)
    return Sharpened(learnt(soft)).eval()


def evaluated(folder: Path, model: nn.Module) -> Report:
    x, y = orders.digits()
    np.savez(folder / "data.npz", x=x[:ROWS], y=y[:ROWS])
    orders.export(model, folder / "model.pt2")
    given = order(folder, folder / "model.pt2", folder / "data.npz", {"threats": [{"norm": "linf", "eps": 0.15}], "attacks": ATTACKS})
    assert isinstance(serve(given), Done)
    return report(given)


@pytest.mark.slow
def test_a_model_that_rounds_its_input_looks_harmless_in_white_and_is_caught_in_black(tmp_path: Path) -> None:
    body = orders.trained(nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)))
    told = evaluated(tmp_path, Quantised(body))
    (result,) = told.threats
    white, black = result.levels
    assert white.robust.rate > 0.95 * told.clean.rate, "without a gradient only chance breaks a row"
    assert black.robust.rate < 0.5 * white.robust.rate
    assert black.alone >= white.robust.count - black.robust.count
    assert {"gradient_absent", "weaker_attacker_wins"} <= {finding.code for finding in told.warnings}
    assert result.trust.level == "suspect"
    assert result.worst.count == black.robust.count, "the number is that of the attacker who won"


@pytest.mark.slow
def test_large_logits_do_not_hide_a_distilled_model_from_white_box_attacks(tmp_path: Path) -> None:
    """The cross-entropy of such a model has no slope in float32; ours is climbed as log-odds, which has."""
    model = distilled()
    x, y = orders.digits()
    rows = (torch.from_numpy(x[:ROWS]).float() / 255).requires_grad_()
    loss = nn.functional.cross_entropy(model(rows), torch.from_numpy(y[:ROWS]), reduction="sum")
    (slope,) = torch.autograd.grad(loss, rows)
    assert (slope.flatten(1) == 0).all(1).float().mean() > 0.5, "what the textbook attack would climb is flat"
    told = evaluated(tmp_path, model)
    white, black = told.threats[0].levels
    assert white.robust.count <= black.robust.count + 3, "no weaker than the attack that needs no slope"
    assert white.robust.rate < 0.2


@pytest.mark.slow
def test_the_figures_of_digits_for_each_kind_of_knowledge() -> None:
    """White, gray and black on an MLP of 64-256-256-10, linf 0.1, mean of three: about 45, 50 and 76 % left, each within 5 points."""
    from workers.access import figures

    white, gray, black = figures()
    assert white <= gray <= black
    assert abs(gray - 50) <= 5
    assert abs(black - 76) <= 5
