import copy

import pytest
import torch
from torch import nn

from sparring.contract.specs import ModelSpec
from sparring.workers import zoo
from sparring.workers.errors import Refused
from sparring.workers.models import load_model, set_mode
from sparring.workers.pt2.load import load_pt2
from tests.workers.pt2 import nets

KINDS = [nets.Mlp, nets.Cnn, nets.LeNet, nets.Vit, nets.MobileConv, nets.Tied, lambda: _with_shape(zoo.ResNet18(3, 8, 10), (3, 16, 16))]


def _with_shape(model, shape):
    model.shape = shape
    return model


@pytest.fixture(scope="module")
def pair(request, tmp_path_factory):
    """A model of each kind and its export, written once."""
    torch.manual_seed(0)
    original = request.param()
    return original.eval(), nets.write(original, tmp_path_factory.mktemp("pair") / "model.pt2")


of_every_kind = pytest.mark.parametrize("pair", KINDS, ids=["mlp", "cnn", "lenet", "vit", "mobileconv", "tied", "resnet18"], indirect=True)


def refusal(path) -> Refused:
    with pytest.raises(Refused) as refused:
        load_model(path, "pt2", ModelSpec())
    return refused.value


@of_every_kind
def test_outputs_and_input_gradients_are_those_of_the_original(pair):
    original, path = pair
    loaded = load_model(path, "pt2", ModelSpec())
    assert (loaded.input_shape, loaded.dtype, loaded.findings) == (original.shape, torch.float32, ())
    assert loaded.parameters == sum(p.numel() for p in original.parameters())
    assert loaded.classes == original(torch.rand(1, *original.shape)).shape[1]
    for rows in (1, 2, 7):
        x = torch.rand(rows, *original.shape, requires_grad=True)
        same = x.detach().clone().requires_grad_()
        expected, found = original(x), loaded.module(same)
        assert torch.equal(found, expected)
        assert torch.equal(*(torch.autograd.grad((y * y).sum(), at)[0] for y, at in ((expected, x), (found, same))))


@of_every_kind
def test_the_state_goes_back_into_the_original_class(pair):
    original, path = pair
    module = load_pt2(path).module
    again = copy.deepcopy(original)
    for parameter in again.parameters():
        parameter.data.zero_()
    again.load_state_dict(module.state_dict(), strict=True)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in original.state_dict().items())
    assert [name for name, _ in module.named_parameters()] == [name for name, _ in original.named_parameters()]


def _steps(model, switch) -> None:
    """Three steps of SGD with momentum, in training mode."""
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    switch(True)
    for _ in range(3):
        x, y = torch.rand(8, 1, 8, 8), torch.randint(10, (8,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    switch(False)


@pytest.mark.parametrize("by", ["set_mode", "train", "wrapped"])
def test_training_is_that_of_the_original_class_bit_for_bit(by, cnn, exported):
    original, module = copy.deepcopy(cnn), load_pt2(exported).module
    wrapped = nn.Sequential(module)
    _steps(original, original.train)
    _steps(module, {"set_mode": lambda mode: set_mode(module, mode), "train": module.train, "wrapped": wrapped.train}[by])
    ours, theirs = module.state_dict(), original.state_dict()
    assert ours.keys() == theirs.keys()
    counters = {name for name in theirs if name.endswith("num_batches_tracked")}
    assert [name for name in theirs.keys() - counters if not torch.equal(ours[name], theirs[name])] == []
    assert not torch.equal(ours["bn.running_mean"], cnn.state_dict()["bn.running_mean"])
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(module(x), original.eval()(x))


def test_copies_switch_alone_and_keep_temporary_buffers_temporary(tmp_path):
    module = load_pt2(nets.write(nets.Vit(), tmp_path / "vit.pt2")).module
    copied = copy.deepcopy(module)
    assert copied.state_dict().keys() == module.state_dict().keys()
    assert "spread" not in copied.state_dict()
    cnn = load_pt2(nets.write(nets.Cnn(), tmp_path / "cnn.pt2")).module
    copied = copy.deepcopy(cnn).train()
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(cnn(x), cnn(x))
    assert not torch.equal(copied(x), copied(x))
    assert torch.equal(copied.eval().bn.running_mean, copied.bn.running_mean)
    assert not torch.equal(copied.bn.running_mean, cnn.bn.running_mean)


def test_a_plain_graph_module_made_from_it_can_be_switched(exported):
    module = load_pt2(exported).module
    plain = torch.fx.GraphModule(module, copy.deepcopy(module.graph))
    x = torch.rand(4, 1, 8, 8)
    set_mode(plain, True)
    assert not torch.equal(plain(x), plain(x))
    set_mode(plain, False)
    assert torch.equal(plain(x), plain(x))


def test_tied_weights_stay_one_weight(tmp_path):
    module = load_pt2(nets.write(nets.Tied(), tmp_path / "tied.pt2")).module
    assert module.first.weight is module.second.weight
    copied = copy.deepcopy(module)
    assert copied.first.weight is copied.second.weight


@pytest.mark.parametrize("name", ["graph", "code", "meta"])
def test_layers_called_like_a_part_of_the_graph_are_refused_with_what_to_do(name, tmp_path):
    class Clashing(nn.Module):
        shape = (8,)

        def __init__(self):
            super().__init__()
            self.add_module(name, nn.Linear(8, 3))

        def forward(self, x):
            return getattr(self, name)(x)

    error = refusal(nets.write(Clashing(), tmp_path / "clash.pt2"))
    assert (error.reason.code, error.reason.detail) == ("unsupported", "parameter_name")
    assert f"Rename '{name}'" in error.reason.hint


def test_layers_called_so_further_down_load(tmp_path):
    original = nets.Mlp()
    original.net = nn.ModuleDict({"code": original.net})
    original.forward = lambda x: original.net["code"](x)
    module = load_pt2(nets.write(original, tmp_path / "deep.pt2")).module
    assert module.state_dict().keys() == original.state_dict().keys()


class Sharing(nn.Module):
    """A buffer inside a parameter, a constant under two names, and a layer that is not used."""

    shape = (4,)

    def __init__(self):
        super().__init__()
        self.big = nn.Parameter(torch.rand(8, 4))
        self.register_buffer("part", self.big.detach()[2:6])
        self.idle = nn.Linear(3, 3)
        self.scale = torch.rand(4)
        self.alias = self.scale

    def forward(self, x):
        return (x @ self.part) * self.scale + (x @ self.big.t())[:, :4] * self.alias


def test_views_of_one_record_share_its_memory_as_in_the_original(tmp_path):
    original = Sharing()
    module = load_pt2(nets.write(original, tmp_path / "sharing.pt2")).module
    assert module.part.data_ptr() == module.big.data_ptr() + 2 * 4 * 4
    x = torch.rand(3, 4)
    assert torch.equal(module(x), original(x))


def test_what_torch_writes_of_unused_layers_and_aliases_is_left_unread(tmp_path):
    original, path = Sharing(), tmp_path / "strict.pt2"
    batches = ({0: torch.export.Dim("batch", min=1, max=4096)},)
    torch.export.save(torch.export.export(original, (torch.rand(2, 4),), dynamic_shapes=batches, strict=True), path)
    module = load_pt2(path).module
    assert module.state_dict().keys() == {"big", "part"}
    x = torch.rand(3, 4)
    assert torch.equal(module(x), original(x))


def test_constants_in_the_graph_follow_the_device(tmp_path):
    class Counting(nn.Module):
        def forward(self, x):
            return x * torch.arange(x.shape[1], device=x.device) + torch.zeros(x.shape[0], 1, device=x.device)

    class Whole(nn.Module):
        shape = (4,)

        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.count = Counting()

        def forward(self, x):
            return self.count(self.fc(x))

    module = load_pt2(nets.write(Whole(), tmp_path / "arange.pt2")).module
    assert module.to("meta")(torch.rand(3, 4, device="meta")).device.type == "meta"


@pytest.mark.parametrize("rows", [1, 2, 6])
@pytest.mark.parametrize("kind", [nets.Mlp, nets.Cnn, nets.LeNet, nets.MobileConv])
def test_an_export_for_one_batch_size_runs_at_others(kind, rows, tmp_path):
    original = kind()
    module = load_pt2(nets.write(original, tmp_path / "static.pt2", rows=rows, dynamic=False)).module
    for count in (1, 2, 5):
        x = torch.rand(count, *original.shape)
        assert torch.equal(module(x), original.eval()(x))


def test_attention_exported_for_a_batch_of_several_runs_at_others(tmp_path):
    original = nets.Vit()
    module = load_pt2(nets.write(original, tmp_path / "static.pt2", rows=2, dynamic=False)).module
    x = torch.rand(5, *original.shape)
    assert torch.equal(module(x), original.eval()(x))


def test_a_graph_that_mixes_its_rows_at_another_batch_is_refused_as_static(tmp_path):
    class Across(nn.Module):
        shape = (4,)

        def forward(self, x):
            return x.reshape(8).cumsum(0).reshape(2, 4)

    error = refusal(nets.write(Across(), tmp_path / "static.pt2", dynamic=False))
    assert error.reason.detail == "static_batch"
    assert "torch.export.Dim" in error.reason.hint


def test_an_export_for_a_huge_batch_is_not_tried(tmp_path):
    error = refusal(nets.write(nets.Mlp(), tmp_path / "static.pt2", rows=2000, dynamic=False))
    assert (error.reason.detail, "2000" in error.reason.message) == ("static_batch", True)


class Answers(nn.Module):
    shape = (6,)

    def __init__(self, answer):
        super().__init__()
        self.fc = nn.Linear(6, 3)
        self.answer = answer

    def forward(self, x):
        return self.answer(self.fc(x))


@pytest.mark.parametrize(
    "answer",
    [lambda y: (y, y), lambda y: y[:, 0], lambda y: y[:, :1], lambda y: y[:, :, None], lambda y: y.argmax(1), lambda y: {"a": y, "b": y}],
    ids=["two", "vector", "one column", "cube", "classes", "dictionary"],
)
def test_outputs_that_are_no_logits_are_refused(answer, tmp_path):
    error = refusal(nets.write(Answers(answer), tmp_path / "model.pt2"))
    assert error.reason.detail == "shape_mismatch"
    assert "(rows, classes)" in error.reason.hint


def test_two_inputs_are_refused(tmp_path):
    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    path = tmp_path / "two.pt2"
    torch.export.save(torch.export.export(Two(), (torch.rand(2, 3), torch.rand(2, 3)), strict=False), path)
    assert refusal(path).reason.detail == "shape_mismatch"


def test_the_declared_number_of_classes_must_be_the_models(exported):
    with pytest.raises(Refused, match="10 classes, not 7"):
        load_model(exported, "pt2", ModelSpec(classes=7))
    assert load_model(exported, "pt2", ModelSpec(classes=10)).classes == 10


def test_an_architecture_for_a_graph_is_refused(exported):
    with pytest.raises(Refused, match="was given for a graph"):
        load_model(exported, "pt2", ModelSpec(arch="cnn"))


def test_a_training_export_is_measured_in_evaluation_mode(tmp_path):
    original = nets.Cnn()
    loaded = load_model(nets.write(original, tmp_path / "model.pt2", training=True), "pt2", ModelSpec())
    assert [finding.code for finding in loaded.findings] == ["exported_in_training"]
    x = torch.rand(4, *original.shape)
    assert torch.equal(loaded.module(x), original.eval()(x))


def test_dropout_that_is_always_on_stays_on_and_is_reported(tmp_path):
    class Always(nets.Cnn):
        def forward(self, x):
            return nn.functional.dropout(super().forward(x), 0.5, training=True)

    loaded = load_model(nets.write(Always(), tmp_path / "model.pt2"), "pt2", ModelSpec())
    assert [finding.code for finding in loaded.findings] == ["stochastic_ops"]
    x = torch.rand(4, 1, 8, 8)
    assert not torch.equal(loaded.module(x), loaded.module(x))


def test_noise_in_evaluation_is_reported(tmp_path):
    class Noisy(nets.Mlp):
        def forward(self, x):
            return super().forward(x + torch.randn_like(x))

    assert [finding.code for finding in load_model(nets.write(Noisy(), tmp_path / "model.pt2"), "pt2", ModelSpec()).findings] == [
        "stochastic_ops"
    ]


class Stateful(nets.Mlp):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls.add_(1)
        return super().forward(x) + self.calls


class SpoilsInput(nets.Mlp):
    def forward(self, x):
        return super().forward(x.view(-1, 64).mul_(2))


class FrozenNorm(nets.Cnn):
    """One batch norm in evaluation mode, another in training mode."""

    def __init__(self):
        super().__init__()
        self.second = nn.BatchNorm1d(10)

    def forward(self, x):
        self.bn.eval()
        self.second.train()
        return self.second(super().forward(x))


@pytest.mark.parametrize("kind", [Stateful, SpoilsInput, FrozenNorm])
def test_models_that_change_something_while_predicting_are_refused(kind, tmp_path):
    assert refusal(nets.write(kind(), tmp_path / "model.pt2")).reason.detail == "stateful"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_reported(value, tmp_path):
    model = nets.Mlp()
    with torch.no_grad():
        model.net[1].weight[0, 0] = value
    loaded = load_model(nets.write(model, tmp_path / "model.pt2"), "pt2", ModelSpec())
    assert [(finding.code, finding.evidence["tensors"]) for finding in loaded.findings] == [("nan_weights", ["net.1.weight"])]


def test_half_and_double_precision_are_kept(tmp_path):
    for dtype in (torch.float64, torch.bfloat16):
        model = nets.Mlp().to(dtype)
        path = tmp_path / "model.pt2"
        batches = ({0: torch.export.Dim("batch", min=1, max=4096)},)
        torch.export.save(
            torch.export.export(model.eval(), (torch.rand(2, 1, 8, 8, dtype=dtype),), dynamic_shapes=batches, strict=False), path
        )
        loaded = load_model(path, "pt2", ModelSpec())
        x = torch.rand(3, 1, 8, 8, dtype=dtype)
        assert loaded.dtype == dtype
        assert torch.equal(loaded.module(x), model(x))


def test_a_graph_of_its_own_state_can_be_exported_again(exported, tmp_path):
    module = load_pt2(exported).module
    again = load_pt2(nets.write(module, tmp_path / "again.pt2", shape=(1, 8, 8))).module
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(again(x), module(x))


@pytest.mark.filterwarnings("ignore:The tensor attribute")  # torch.export says so of every nn.LSTM
def test_recurrent_networks_load(tmp_path):
    class Recurrent(nn.Module):
        shape = (5, 8)

        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(8, 16, batch_first=True)
            self.fc = nn.Linear(16, 3)

        def forward(self, x):
            return self.fc(self.lstm(x)[0][:, -1])

    original = Recurrent()
    module = load_pt2(nets.write(original, tmp_path / "lstm.pt2")).module
    x = torch.rand(3, 5, 8)
    assert torch.equal(module(x), original(x))
