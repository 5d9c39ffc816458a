"""What preflight refuses, and what it warns of."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from workers.orders import digits, export, network, order, trained

from sparring.contract import jobs
from sparring.contract.report import Finding
from sparring.contract.runner import Order
from sparring.contract.specs import DataSpec, ModelSpec
from sparring.workers.bench import open_bench
from sparring.workers.datasets import Dataset
from sparring.workers.errors import Refused
from sparring.workers.preflight import beyond_bounds, preflight
from sparring.workers.prepare import Voting

JOB = {"threats": [{"norm": "linf", "eps": 0.1}]}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return trained(network())


@pytest.fixture(autouse=True)
def threads():
    """As in a row process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(folder: Path, module: nn.Module, x: np.ndarray | None = None, *, row: tuple[int, ...] = (1, 8, 8), rows: int = 120,
         spec: ModelSpec | None = None, meaning: DataSpec | None = None) -> Order:  # fmt: skip
    images, labels = digits()
    np.savez(folder / "data.npz", x=images[:rows] if x is None else x[:rows], y=labels[:rows])
    return order(folder, export(module.eval(), folder / "model.pt2", row), folder / "data.npz", JOB, spec, meaning)


def look(given: Order) -> list[Finding]:
    return list(preflight(given, torch.device("cpu"), 64)[0].findings)


def test_an_honest_model_raises_no_finding(model: nn.Module, tmp_path: Path) -> None:
    assert look(made(tmp_path, model)) == []


class Crowded(nn.Module):
    """A model whose answers change in their last bits with the number of rows that share a pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.model(x) * (1 + 1e-6 * x.new_ones(x.shape[0], 1).sum())
        return scores


def test_passes_are_shorter_only_where_that_changes_no_bit(model: nn.Module, tmp_path: Path) -> None:
    facts, bench = preflight(made(tmp_path, model), torch.device("cpu"), 64)
    assert (facts.independent, facts.granule, bench.target.granule) == (True, 16, 16)
    x = bench.rows(torch.arange(120))
    for rows in (120, 48, 17, 1):
        assert torch.equal(bench.target.verdict(x[:rows]), bench.target.verdict(x)[:rows])
    facts, bench = preflight(made(tmp_path, Crowded(model)), torch.device("cpu"), 64)
    assert (facts.independent, facts.granule, bench.target.granule) == (True, 0, 64)
    assert open_bench(made(tmp_path, Crowded(model)), torch.device("cpu"), 64, facts).target.granule == 64


def test_rows_that_the_data_does_not_have_are_told(model: nn.Module, tmp_path: Path) -> None:
    given = made(tmp_path, model, rows=40)
    for asked, told in ((40, []), (4100, ["The job asks for 4,100 rows, and the data has 40: all of them are taken."])):
        asking = given.model_copy(update={"job": given.job.model_copy(update={"rows": asked})})
        assert [finding.message for finding in look(asking)] == told


def test_an_eps_beyond_the_bounds_is_told_with_the_one_that_may_be_meant() -> None:
    def told(norm: str, eps: object, spec: DataSpec) -> list[Finding]:
        wanted = {"kind": "evaluate", "model": "a" * 64, "data": "b" * 64, "threats": [{"norm": norm, "eps": eps}]}
        data = Dataset(np.zeros((3, 1, 8, 8), np.float32), None, spec)
        return list(beyond_bounds(jobs.JOB.validate_python(wanted), data))

    unit, wide = DataSpec(bounds=(0, 1)), DataSpec(bounds=(-10, 10))
    (finding,) = told("linf", 8, unit)
    assert finding.code == "eps_exceeds_bounds"
    assert "write 8/255" in finding.hint
    for norm, widest in (("linf", 1), ("l2", 8)):
        assert told(norm, widest, unit) == told(norm, 20 * widest, wide) == []
        assert told(norm, 1.01 * widest, unit)
        (finding,) = told(norm, 20.1 * widest, wide)
        assert "/255" not in finding.hint
    assert told("linf", 8, DataSpec(bounds="none")) == []


class Rounded(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.model(torch.round(x * 255) / 255)
        return scores


class Detached(Rounded):
    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.model(x.detach())
        return scores


@pytest.mark.parametrize("wrap", [Rounded, Detached])
def test_a_gradient_that_does_not_arrive(model: nn.Module, tmp_path: Path, wrap: type[Rounded]) -> None:
    (found,) = look(made(tmp_path, wrap(model)))
    assert found.code == "gradient_absent"
    assert found.evidence["rows_without_gradient"] == found.evidence["rows_looked_at"] == 64


def test_probabilities_are_recognised_and_their_logarithm_attacked(model: nn.Module, tmp_path: Path) -> None:
    given = made(tmp_path, nn.Sequential(model, nn.Softmax(1)))
    facts, bench = preflight(given, torch.device("cpu"), 64)
    assert [found.code for found in facts.findings] == ["probabilities"]
    x = bench.rows(torch.arange(5))
    with torch.no_grad():
        assert torch.allclose(bench.target.logits(x), model(x).log_softmax(1), atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_probabilities_in_half_precision_leave_a_gradient(model: nn.Module, tmp_path: Path, dtype: torch.dtype) -> None:
    half = copy.deepcopy(nn.Sequential(model, nn.Softmax(1))).to(dtype)
    x, y = digits()
    np.savez(tmp_path / "data.npz", x=x[:120], y=y[:120])
    dynamic = ({0: torch.export.Dim("batch", min=1, max=4096)},)
    torch.export.save(torch.export.export(half, (torch.zeros(2, 1, 8, 8, dtype=dtype),), dynamic_shapes=dynamic), tmp_path / "m.pt2")
    facts, bench = preflight(order(tmp_path, tmp_path / "m.pt2", tmp_path / "data.npz", JOB), torch.device("cpu"), 64)
    assert facts.probabilities
    assert torch.isfinite(bench.target.verdict(bench.rows(torch.arange(100)))).all()


def test_exactly_equal_scores_are_said(model: nn.Module, tmp_path: Path) -> None:
    class Coarse(Rounded):
        def forward(self, x: Tensor) -> Tensor:
            return torch.round(self.model(x) / 8) * 8

    assert "tied_scores" in [found.code for found in look(made(tmp_path, Coarse(model)))]


def test_a_model_that_answers_differently_each_time(model: nn.Module, tmp_path: Path) -> None:
    class Noisy(Rounded):
        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.model(x + torch.randn_like(x) * 0.1)
            return scores

    assert "not_deterministic" in [found.code for found in look(made(tmp_path, Noisy(model)))]


def named(found: list[Finding]) -> str:
    (chance,) = [each for each in found if each.code == "chance_accuracy"]
    assert chance.evidence["accuracy_then"] > chance.evidence["accuracy"]
    return str(chance.evidence["better_reading"])


def test_a_model_of_0_to_255_fed_0_to_1_is_told_so(tmp_path: Path) -> None:
    class Bytes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = trained(network())

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.model(x / 255)
            return scores

    model = Bytes()
    assert "scale=1 bounds=0,255" in named(look(made(tmp_path, model)))
    assert look(made(tmp_path, model, meaning=DataSpec(scale=1.0, bounds=(0.0, 255.0)))) == []


def test_a_model_of_0_to_1_fed_0_to_255_is_told_so(tmp_path: Path) -> None:
    class Folded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x - 10 * torch.relu(x - 1)

    given = made(tmp_path, trained(nn.Sequential(Folded(), *network())), meaning=DataSpec(scale=1.0, bounds=(0.0, 255.0)))
    assert "scale=0.00392156863 bounds=0,1" in named(look(given))


def test_data_stored_nhwc_is_told_so_where_shapes_fit_either_way(tmp_path: Path) -> None:
    """Eight channels of 8 x 8: nothing but the accuracy tells the layouts apart."""
    images, labels = digits()
    x = np.concatenate([np.roll(images, shift, axis=3) for shift in range(8)], axis=1)
    net = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10))
    torch.manual_seed(0)
    from sparring.defenses.fit import fit

    list(fit(net, torch.from_numpy(x).float() / 255, torch.from_numpy(labels), epochs=8))
    given = made(tmp_path, net, np.ascontiguousarray(x.transpose(0, 2, 3, 1)), row=(8, 8, 8))
    assert "NHWC" in named(look(given))
    (tmp_path / "declared").mkdir()
    declared = made(
        tmp_path / "declared", net, np.ascontiguousarray(x.transpose(0, 2, 3, 1)), row=(8, 8, 8), meaning=DataSpec(layout="NHWC")
    )
    assert look(declared) == []


def test_normalisation_becomes_the_first_layer(tmp_path: Path) -> None:
    net = trained(network(), scale=1 / 255 / 0.25)
    facts, bench = preflight(made(tmp_path, net, spec=ModelSpec(mean=(0.0,), std=(0.25,))), torch.device("cpu"), 64)
    assert facts.findings == ()
    x = bench.rows(torch.arange(4))
    with torch.no_grad():
        assert torch.allclose(bench.target.verdict(x), net(x / 0.25), atol=1e-5)


def test_axes_of_length_one_may_be_missing(model: nn.Module, tmp_path: Path) -> None:
    assert look(made(tmp_path, model, digits()[0][:, 0])) == []


def test_a_flat_model_reads_pictures(tmp_path: Path) -> None:
    flat = trained(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    assert look(made(tmp_path, nn.Sequential(flat[1]), row=(64,))) == []


def refused(given: Order) -> Refused:
    with pytest.raises(Refused) as caught:
        preflight(given, torch.device("cpu"), 64)
    assert caught.value.reason.hint
    return caught.value


def test_shapes_that_do_not_fit_are_named(model: nn.Module, tmp_path: Path) -> None:
    reason = refused(made(tmp_path, model, np.zeros((120, 1, 9, 9), dtype=np.uint8))).reason
    assert (reason.code, reason.detail) == ("bad_model", "shape_mismatch")
    assert "[1, 8, 8]" in reason.message
    assert "[1, 9, 9]" in reason.message


def test_a_colour_picture_in_nhwc_gets_the_hint(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 10))
    assert "layout=NHWC" in refused(made(tmp_path, net, np.zeros((120, 8, 8, 3), dtype=np.uint8), row=(3, 8, 8))).reason.hint


def test_declared_classes_are_checked(model: nn.Module, tmp_path: Path) -> None:
    assert "not 7 as declared" in refused(made(tmp_path, model, spec=ModelSpec(classes=7))).reason.message


def test_wrong_number_of_channel_means(model: nn.Module, tmp_path: Path) -> None:
    reason = refused(made(tmp_path, model, spec=ModelSpec(mean=(0.1, 0.2, 0.3)))).reason
    assert "mean has 3 values" in reason.message


def test_a_model_that_answers_nan(tmp_path: Path) -> None:
    net = trained(network(), epochs=1)
    with torch.no_grad():
        net[6].bias[3] = float("nan")
    assert refused(made(tmp_path, net)).reason.code == "bad_model"


def test_values_outside_declared_bounds_name_the_row(model: nn.Module, tmp_path: Path) -> None:
    x = digits()[0].astype(np.float32) / 255
    x[77, 0, 1, 2] = 1.5
    reason = refused(made(tmp_path, model, x, meaning=DataSpec(bounds=(0.0, 1.0)))).reason
    assert (reason.code, reason.detail) == ("bad_data", "out_of_bounds")
    assert "row 77" in reason.message


def test_what_a_drawing_model_says_is_what_most_of_its_passes_say(model: nn.Module, tmp_path: Path) -> None:
    """One look in three is a guess; the judge's word is the mean's all the same, and the same each time."""

    class Guessing(Rounded):
        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.model(x)
            guess = 100 * torch.randn_like(scores)
            return torch.where(torch.rand_like(scores[:, :1]) < 0.3, guess, scores)

    given = made(tmp_path, Guessing(model))
    facts, bench = preflight(given, torch.device("cpu"), 64)
    x = bench.rows(torch.arange(120))
    plain = model(x).argmax(1)
    votes = bench.target.verdict(x)
    assert facts.draws
    assert facts.judge.endswith("by the majority of 11 passes")
    assert torch.allclose((votes.exp() - 1).sum(1), torch.full((120,), 11.0))
    assert torch.equal(votes, bench.target.verdict(x))
    assert float((votes.argmax(1) == plain).float().mean()) > 0.95 > float((bench.target.logits(x).argmax(1) == plain).float().mean())
    again = open_bench(given, torch.device("cpu"), 64, facts)
    assert torch.equal(again.target.verdict(x), votes)


def test_votes_on_no_answer_are_no_votes() -> None:
    class Sometimes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.where(torch.rand(len(x), 1) < x, torch.nan, torch.eye(3)[[2] * len(x)])

    votes = Voting(Sometimes())(torch.tensor([[0.0], [0.9]])).exp() - 1
    assert votes[0].round().tolist() == [0, 0, 11]
    assert votes[1].isnan().any()
