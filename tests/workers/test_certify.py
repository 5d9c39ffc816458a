"""What is certified is never broken, what is broken was never certified, and the report brackets the truth between the two."""

from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from workers.orders import digits, order, report, serve, trained

from sparring.attacks.operators import Unbounded
from sparring.contract.certificates import IntervalBounds
from sparring.contract.defenses import SmoothingCertificate
from sparring.contract.jobs import JOB, Certify, Evaluate
from sparring.contract.runner import Done
from sparring.contract.specs import ModelSpec
from sparring.reports import rerun, text
from sparring.workers import certified, smoothing
from sparring.workers.bench import Bench
from sparring.workers.course import attack_shard
from sparring.workers.errors import Refused
from sparring.workers.preflight import preflight
from sparring.workers.shard import UNBROKEN, Shard
from sparring.workers.zoo import Mlp

ROWS = 60
LINF = [{"norm": "linf", "eps": 0.01}, {"norm": "linf", "eps": 0.04}]
PGD = [{"kind": "pgd", "steps": 10}]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    x, y = digits()
    np.savez(folder / "data.npz", x=x[::5], y=y[::5])
    for name, layers in (("relu", {"l1": (64, 24, True), "l2": (24, 10, True)}), ("linear", {"l1": (64, 10, True)})):
        save_file(trained(Mlp(layers), epochs=3).state_dict(), folder / f"{name}.safetensors")
    return folder


def ordered(files: Path, folder: Path, model: str, **job):
    """The order that a worker makes of a certify job."""
    asked = JOB.validate_python({"kind": "certify", "model": "0" * 64, "data": "1" * 64, "rows": ROWS} | job)
    assert isinstance(asked, Certify)
    given = order(folder, files / f"{model}.safetensors", files / "data.npz", asked.evaluation().model_dump())
    return given.model_copy(update={"model": given.model.model_copy(update={"format": "safetensors", "spec": ModelSpec(arch="mlp")})})


def attacked(files: Path, folder: Path, model: str, **job) -> Shard:
    given = ordered(files, folder, model, **job)
    _, bench = preflight(given, torch.device("cpu"), 64)
    return attack_shard(given.job, bench, np.arange(ROWS), lambda more: None)


@pytest.mark.parametrize("model", ["relu", "linear"])
def test_certified_rows_are_attacked_and_stand(files, tmp_path, model):
    lines, boxes = (attacked(files, tmp_path / method, model, threats=LINF, attacks=PGD, method=method) for method in ("crown", "interval"))
    for at, (tight, loose) in enumerate(zip(lines.ended, boxes.ended, strict=True)):
        assert 0 < loose.proved.sum() <= tight.proved.sum()
        assert (tight.proved | ~loose.proved).all(), "lines prove whatever intervals do"
        assert (tight.broken_by == loose.broken_by).all(), "the certificate has no say in the attacks"
        assert (tight.broken_by[tight.proved] == UNBROKEN).all()
        assert at or tight.queries[tight.proved].all(), "every row was attacked"


def test_of_a_linear_model_exactly_those_rows_are_certified_that_hold(files, tmp_path):
    """Within the box of ball and bounds a difference of scores is least where each entry is at the end that its weight points from."""
    given = ordered(files, tmp_path, "linear", threats=LINF[1:], attacks=PGD)
    _, bench = preflight(given, torch.device("cpu"), 64)
    shard = attack_shard(given.job, bench, np.arange(ROWS), lambda more: None)
    weight, bias = (tensor.detach().double() for tensor in bench.loaded.module.parameters())
    x, y = bench.rows(torch.arange(ROWS)).flatten(1).double(), torch.from_numpy(shard.labels)
    low, high = (x - 0.04).clamp(min=0)[:, None], (x + 0.04).clamp(max=1)[:, None]
    apart = weight[y][:, None] - weight
    least = torch.minimum(apart * low, apart * high).sum(2) + bias[y][:, None] - bias
    holds = least.scatter(1, y[:, None], float("inf")).amin(1) > 0
    assert 0 < holds.sum() < ROWS
    assert shard.ended[0].proved.tolist() == holds.tolist()


def test_the_report_brackets_the_truth(files, tmp_path):
    given = ordered(files, tmp_path, "relu", threats=LINF, attacks=PGD)
    assert isinstance(serve(given, processes=1), Done)
    made = report(given)
    assert isinstance(made.job, Evaluate)
    for result in made.threats:
        assert 0 < result.certified <= result.worst.count <= made.clean.count
        assert result.proved is None
        told = text.proved_text(result, made)
        assert "CROWN" in told
        for name in ("report.md", "report.html"):
            assert told in unescape((Path(given.out) / name).read_text()).replace("\\", "")
    assert rerun.command(made).startswith("sparring certify ")
    assert "--method crown" in rerun.command(made)


def test_a_row_that_is_certified_and_broken_fails_the_job(files, tmp_path):
    broken = attacked(files, tmp_path / "a", "relu", threats=LINF[1:], attacks=PGD)
    job = ordered(files, tmp_path / "b", "relu", threats=LINF[1:], attacks=PGD).job
    assert certified.fault(job, broken.ended) is None
    assert (broken.ended[0].broken_by >= 0).any()
    lied = tuple(ended._replace(proved=ended.broken_by != -99) for ended in broken.ended)
    reason = certified.fault(job, lied)
    assert (reason.code, reason.detail) == ("internal", "certificate_broken")
    assert reason.message.startswith(f"{(broken.ended[0].broken_by != UNBROKEN).sum()} rows")


def test_a_graph_without_bounds_is_refused_and_told_of_smoothing(files, tmp_path, monkeypatch):
    def unbounded(self, x):
        raise Unbounded("gelu has none")

    monkeypatch.setattr(Bench, "bounded", unbounded)
    with pytest.raises(Refused, match="nothing can be certified by bounds: gelu has none") as refused:
        attacked(files, tmp_path, "relu", threats=LINF, attacks=PGD)
    assert refused.value.reason.detail == "no_bound"
    assert "smoothing" in refused.value.reason.hint


SMOOTHING = {"kind": "smoothing", "sigma": 0.25, "selection": 20, "samples": 100}


def test_the_smoothed_model_is_certified_and_attacked_in_the_place_of_the_model(files, tmp_path):
    threats = [{"norm": "l2", "eps": eps} for eps in (0.05, 0.3, 5.0)]
    shard = attacked(files, tmp_path, "relu", threats=threats, method=SMOOTHING, attacks=PGD[:1])
    small, middle, large = shard.ended
    assert 0 < middle.proved.sum() < small.proved.sum() <= (shard.clean == shard.labels).sum()
    assert not large.proved.any(), "so few draws certify no such radius"
    assert not certified.contradicted(shard.ended)
    assert (large.broken_by != UNBROKEN).all()
    spec = SmoothingCertificate.model_validate(SMOOTHING)
    assert f"{spec.alpha:g}" in smoothing.method(spec)


def test_a_smoothed_linear_model_of_two_classes_is_known_in_closed_form():
    """P(w x + noise > 0) = Phi(w x / sigma): the vote is its sign, the mean prediction has its slope along w."""
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [1.0, -2.0, 2.0]]))
        model.bias.zero_()
    spec, x = SmoothingCertificate(sigma=0.5), torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    votes = smoothing.judge(model, spec)(x).exp() - 1
    assert votes.sum(1).tolist() == pytest.approx([smoothing.VOTES] * 3)
    share = torch.special.ndtr(torch.tensor([1.0, -1.0, 3.0]) / (0.5 * 3))
    assert (votes[:, 1] / smoothing.VOTES - share).abs().max() < 0.15
    x.requires_grad_()
    (slope,) = torch.autograd.grad(smoothing.climber(model, spec)(x).diff().sum(), x)
    assert torch.nn.functional.cosine_similarity(slope, model.weight[1:].detach()).min() > 0.999


def test_draws_are_the_same_for_every_row_whatever_stands_beside_it():
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3).double(), torch.rand(6, 4).double()
    for made in (smoothing.judge, smoothing.climber):
        smoothed = made(model, SmoothingCertificate())
        torch.testing.assert_close(smoothed(x)[2:4], smoothed(x[2:4]), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({"threats": LINF, "method": "smoothing"}, "smoothing certifies nothing in norm linf"),
        ({"threats": [{"norm": "l0", "eps": 2}]}, "crown certifies nothing in norm l0"),
        ({"threats": LINF + LINF}, "threats.2: the same threat is listed twice"),
        ({"threats": LINF, "attacks": PGD, "suite": "quick"}, "exclude each other"),
        ({"threats": [{"norm": "l1", "eps": 1}], "attacks": [{"kind": "fgsm"}]}, "fgsm is not defined for norm l1"),
        ({"threats": LINF, "method": "luck"}, "luck"),
        ({"kind": "evaluate", "threats": LINF, "certificate": "crown", "skip_proved": True}, "skip_proved"),
    ],
)
def test_what_cannot_be_certified_is_said_at_once(job, said):
    with pytest.raises(ValueError, match=said):
        JOB.validate_python({"kind": "certify", "model": "0" * 64, "data": "1" * 64} | job)


def test_a_bare_name_stands_for_its_defaults():
    job = Evaluate(model="0" * 64, data="1" * 64, threats=LINF, certificate="interval")
    assert job.certificate == IntervalBounds()
