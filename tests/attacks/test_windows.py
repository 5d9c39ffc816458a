"""Passes by windows: bit for bit the full passes, on every chain they are used for; and which models they leave alone."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from attacks.cases import Spy, problem
from torch import Tensor, nn
from torch.nn import functional
from workers.orders import export

from sparring.attacks import catalogue, windows
from sparring.attacks.access import Scores, Target
from sparring.attacks.chain import Plan
from sparring.attacks.problem import Problem
from sparring.attacks.search import search_copy
from sparring.attacks.tape import play, record
from sparring.attacks.windows import Windows, plan
from sparring.contract.attacks import Square
from sparring.contract.specs import ModelSpec
from sparring.workers.models import load_model

TILE, GRANULE = 32, 16


class Call(nn.Module):
    """A function among layers."""

    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x)


def head(*layers: nn.Module, classes: int = 8) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(classes))


def batch_norm(channels: int) -> nn.Module:
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        for tensor in (norm.running_mean, norm.weight, norm.bias):
            nn.init.normal_(tensor)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return norm


C = nn.Conv2d
CHAINS: dict[str, tuple[tuple[int, ...], int, Callable[[], nn.Module]]] = {
    "plain": ((3, 16, 16), 3, lambda: head(C(3, 8, 3, padding=1), nn.ReLU(), C(8, 16, 3, padding=1), nn.ReLU())),
    "pooled": ((1, 20, 20), 3, lambda: head(C(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2), C(16, 32, 3), nn.ReLU(), nn.AvgPool2d(2))),
    "normed": ((3, 14, 14), 3, lambda: head(C(3, 8, 3, padding=1), batch_norm(8), nn.ReLU(), C(8, 16, 3, bias=False), batch_norm(16))),
    "norm first": ((3, 14, 14), 2, lambda: head(batch_norm(3), C(3, 32, 3, padding=1), nn.ReLU())),
    "strided": ((3, 21, 21), 4, lambda: head(C(3, 16, 3, 2), nn.ReLU(), C(16, 32, 3, 2, 1), nn.ReLU(), C(32, 32, 2, 2))),
    "dilated": ((2, 17, 17), 3, lambda: head(C(2, 16, 3, dilation=2), nn.ReLU(), C(16, 16, 3, padding=2, dilation=2))),
    "grouped": ((4, 16, 16), 4, lambda: head(C(4, 32, 3, groups=2), C(32, 32, 3, padding=1, groups=32), nn.ReLU(), C(32, 16, 1))),
    "same": ((3, 15, 15), 3, lambda: head(C(3, 16, 5, padding="same"), nn.ReLU(), C(16, 16, (3, 1), padding="same"))),
    "valid": ((3, 15, 15), 3, lambda: head(C(3, 16, 5, padding="valid"), nn.ReLU(), C(16, 16, (1, 4), padding="valid"))),
    "oblong": ((2, 9, 33), 3, lambda: head(C(2, 16, (3, 5), (1, 2), (1, 0)), nn.ReLU(), nn.MaxPool2d((1, 2)), C(16, 32, 3))),
    "smooth": ((3, 14, 14), 3, lambda: head(C(3, 16, 3), nn.ELU(), C(16, 16, 3), nn.SiLU(), nn.Dropout(), nn.Tanh())),
    "scaled": ((3, 14, 14), 2, lambda: head(Call(lambda x: (x - 0.4) / 0.3), C(3, 32, 3), Call(lambda x: x * 2 + 1), nn.LeakyReLU())),
    "colours last": ((14, 14, 3), 2, lambda: head(Call(lambda x: x.permute(0, 3, 1, 2)), C(3, 32, 3), nn.Hardtanh())),
    "from a line": ((256,), 2, lambda: head(Call(lambda x: x.reshape(-1, 1, 16, 16)), C(1, 64, 5), nn.ReLU())),
    "double": ((3, 14, 14), 2, lambda: head(Call(lambda x: x.double()), C(3, 32, 3), nn.ReLU()).double()),
    "in place": ((3, 14, 14), 3, lambda: head(C(3, 16, 3), nn.ReLU(inplace=True), C(16, 16, 3), nn.Hardtanh(inplace=True))),
    "padded by a copy": ((3, 14, 14), 2, lambda: head(C(3, 32, 3, padding=1, padding_mode="circular"), nn.ReLU())),
    "a line added": ((3, 16, 16), 2, lambda: head(C(3, 16, 3, padding=1), Call(lambda x: x + torch.arange(16.0)), C(16, 16, 3))),
    "the row looked at": ((3, 16, 16), 2, lambda: head(C(3, 16, 3), Call(lambda x: x * x.amax((2, 3), keepdim=True)), C(16, 8, 3))),
    "pools that overlap": ((3, 16, 16), 3, lambda: head(C(3, 16, 3), nn.MaxPool2d(3, 2), C(16, 8, 3), nn.AvgPool2d(2, divisor_override=3))),
    "pools with edges": ((3, 16, 16), 2, lambda: head(C(3, 16, 3), nn.MaxPool2d(3, 2, 1), C(16, 8, 3))),
    "a corner unseen": ((3, 16, 16), 3, lambda: head(C(3, 16, 3, 2), nn.ReLU(), nn.MaxPool2d(2), C(16, 32, 2))),
}
"""Shape of a row, how many pictures are kept, and the model."""
UNPREPARED = ("plain", "normed", "pooled", "smooth")
"""Tried without a search copy's memory layout as well."""


class Skipping(nn.Module):
    """A stem, and a block with a way around it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = C(3, 16, 3, padding=1), C(16, 16, 3, padding=1), C(16, 16, 3, padding=1)
        self.norm, self.end = batch_norm(16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.stem(x)))
        x = functional.relu(self.two(functional.relu(self.one(x))) + x)
        logits: Tensor = self.end(x.mean((2, 3)))
        return logits


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """However little a model computes, windows are worth it."""
    monkeypatch.setattr(windows, "_WORTH", 0)


@pytest.fixture(scope="module")
def exact() -> None:
    """In some processors' libraries the order in which numbers are added up hangs on the size of a picture."""
    shape, _, build = CHAINS["plain"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "_WORTH", 0)
        found = plan(search_copy(made(build, shape))[0], torch.zeros(TILE, *shape), TILE, GRANULE)
    if found is None:
        pytest.skip("NO WINDOWS: on this processor a window is not computed bit for bit as the whole; all passes are full ones")


needs_exact = pytest.mark.usefixtures("exact")


def made(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> nn.Module:
    """With weights of its own, in evaluation mode."""
    torch.manual_seed(0)
    model = build().eval()
    with torch.no_grad():
        model(torch.rand(2, *shape))
    return model.requires_grad_(False)


def walk(model: nn.Module, shape: tuple[int, ...], found: Plan, turns: int = 16) -> None:
    """Rows come and go, change in windows of every size and place, in several, in none or everywhere."""
    generator = torch.Generator().manual_seed(2)
    target, look = Target(model, model, TILE, granule=GRANULE), Windows(found, torch.zeros(1, *shape), TILE, GRANULE)
    points = torch.rand(80, *shape, generator=generator)
    best, value = points.clone(), torch.full((80,), float("-inf"))
    cells = points[0].numel()
    for turn in range(turns):
        count = int(torch.randint(1, TILE + 1, (), generator=generator)) if turn % 3 else TILE
        names = torch.randperm(80 if turn % 4 == 3 else 40, generator=generator)[:count]
        asked = best[names].clone()
        for at in range(count):
            fresh = torch.rand(cells, generator=generator)
            mask = torch.zeros(shape, dtype=torch.bool)
            for _ in range(int(torch.randint(0, 3, (), generator=generator))):
                spans = [sorted(torch.randint(0, size + 1, (2,), generator=generator).tolist()) for size in shape]
                mask[tuple(slice(low, high) for low, high in spans)] = True
            if turn % 5 == 0 and at % 2:
                mask[...] = True
            asked[at] = torch.where(mask, fresh.reshape(shape), asked[at])
        logits = look(names, asked, lambda scores: scores[:, 0])
        assert torch.equal(logits, target.logits(asked)), f"turn {turn}"
        better = logits[:, 0] > value[names]
        best[names[better]], value[names[better]] = asked[better], logits[better, 0].to(value.dtype)


@needs_exact
@pytest.mark.parametrize(("name", "prepare"), [*((name, search_copy) for name in CHAINS), *((name, None) for name in UNPREPARED)])
def test_scores_by_windows_are_those_of_full_passes_bit_for_bit(
    name: str, prepare: Callable[[nn.Module], tuple[nn.Module, object]]
) -> None:
    shape, kept, build = CHAINS[name]
    model = made(build, shape)
    if prepare:
        model, _ = prepare(model)
    found = plan(model, torch.zeros(TILE, *shape), TILE, GRANULE)
    assert found is not None
    assert len(found.stages) == kept
    walk(model, shape, found)


@needs_exact
def test_a_graph_read_from_a_file_is_computed_by_windows_too(tmp_path: Path) -> None:
    shape, kept, build = CHAINS["normed"]
    loaded = load_model(export(made(build, shape), tmp_path / "m.pt2", shape), "pt2", ModelSpec()).module
    model, _ = search_copy(nn.Sequential(loaded))
    found = plan(model, torch.zeros(TILE, *shape), TILE, GRANULE)
    assert found is not None
    assert len(found.stages) == kept
    walk(model, shape, found)


@needs_exact
def test_of_a_model_with_ways_around_the_chain_before_them_is_computed_by_windows() -> None:
    model = made(Skipping, (3, 16, 16))
    found = plan(model, torch.zeros(TILE, 3, 16, 16), TILE, GRANULE)
    assert found is not None
    assert len(found.stages) == 2
    walk(model, (3, 16, 16), found)


class Branching(nn.Module):
    """Does something else where numbers say so."""

    def __init__(self, ask: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.ask, self.chain = ask, head(C(3, 16, 3), nn.ReLU(), C(16, 16, 3))

    def forward(self, x: Tensor) -> Tensor:
        asked = self.ask(x)
        logits: Tensor = self.chain(x)
        return logits + 1 if asked else logits


def drawn(x: Tensor) -> Tensor:
    return x + torch.rand(x.shape) * 1e-3


LEFT_ALONE: dict[str, Callable[[], nn.Module]] = {
    "no convolution": lambda: head(nn.Flatten(), nn.Linear(3 * 16 * 16, 64), nn.ReLU()),
    "a condition": lambda: Branching(lambda x: bool(x.sum() > 0)),
    "a number taken out": lambda: Branching(lambda x: x.max().item() > 2),
    "numbers listed": lambda: Branching(lambda x: x[:, 0, 0, 0].tolist()[0] > 2),
    "a comparison of tensors": lambda: Branching(lambda x: torch.equal(x, x + 1)),
    "numbers as an array": lambda: Branching(lambda x: x.numpy().max() > 2),
    "draws": lambda: head(Call(drawn), C(3, 16, 3), nn.ReLU(), C(16, 16, 3)),
    "draws like the rows": lambda: head(Call(lambda x: x + 1e-3 * torch.rand_like(x)), C(3, 16, 3), nn.ReLU(), C(16, 16, 3)),
    "entries written": lambda: head(Call(written), C(3, 16, 3), nn.ReLU(), C(16, 16, 3)),
    "rows that see each other": lambda: head(C(3, 32, 3), Call(lambda x: x - x.mean(0)), C(32, 16, 3)),
    "what the input is needed for again": lambda: Around(),
    "pixels passed over": lambda: head(C(3, 64, 1, stride=2), nn.ReLU()),
    "colours as rows": lambda: head(Call(lambda x: x.reshape(-1, 1, 16, 16)), C(1, 8, 3), Call(lambda x: x.reshape(-1, 3, 8, 14, 14))),
    "two looks at each row": lambda: head(Call(lambda x: torch.cat((x, x.flip(3)))), C(3, 8, 3), Call(lambda x: sum(x.chunk(2)))),
    "rows turned round": lambda: head(Call(lambda x: x.flip(0)), C(3, 16, 3), Call(lambda x: x.flip(0))),
    "edges wider than the kernel": lambda: head(C(3, 16, 3, padding=5), nn.ReLU()),
    "a convolution by weights that depend on the row": lambda: Twice(),
}


def written(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, 0] = 0
    return x


class Around(nn.Module):
    """The way around leads from the input to the end."""

    def __init__(self) -> None:
        super().__init__()
        self.chain = nn.Sequential(C(3, 16, 3, padding=1), nn.ReLU(), C(16, 3, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return (self.chain(x) + x).flatten(1)


class Twice(nn.Module):
    """The rows themselves are the weights."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, x[:, :, :3, :3]).flatten(1)


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_what_is_no_chain_or_hangs_on_numbers_is_left_alone(name: str) -> None:
    model = made(LEFT_ALONE[name], (3, 16, 16))
    assert plan(model, torch.zeros(TILE, 3, 16, 16), TILE, GRANULE) is None
    scores = Target(model, model, TILE, granule=GRANULE).near(torch.zeros(1, 3, 16, 16))
    assert scores(torch.arange(5), torch.rand(5, 3, 16, 16), lambda logits: logits[:, 0]).shape[0] == 5


def test_what_is_too_small_to_be_worth_it_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for width, worth in ((8, False), (96, True)):
        model = made(lambda width=width: head(C(3, width, 3), nn.ReLU(), C(width, width, 3), nn.ReLU()), (3, 16, 16))
        assert (plan(model, torch.zeros(TILE, 3, 16, 16), TILE, GRANULE) is not None) == worth


@needs_exact
def test_a_change_of_search_copy_or_shape_asks_for_another_plan() -> None:
    shape, _, build = CHAINS["plain"]
    target = Target(made(build, shape), made(build, shape), TILE, granule=GRANULE)
    x = torch.rand(3, *shape)
    rows, worth = torch.arange(3), lambda logits: logits[:, 0]
    before = target.near(x)(rows, x, worth)
    torch.manual_seed(1)
    target.search = head(C(3, 16, 3), nn.ReLU())
    target.search(x)
    assert torch.equal(target.near(x)(rows, x, worth), target.logits(x))
    assert not torch.equal(target.logits(x), before)


@needs_exact
def test_what_it_costs_is_counted_like_full_passes() -> None:
    shape, _, build = CHAINS["plain"]
    model = made(build, shape)
    target = Target(model, model, TILE, granule=GRANULE)
    look = target.near(torch.zeros(1, *shape))
    for count in (5, 16, 1):
        look(torch.arange(count), torch.rand(count, *shape), lambda logits: logits[:, 0])
    assert target.spent.forwards == 22


@needs_exact
def test_windows_of_several_sizes_go_together_where_that_is_cheaper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never, always, or as reckoned: the scores are the same."""
    shape, _, build = CHAINS["plain"]
    model = made(build, shape)
    found = plan(model, torch.zeros(TILE, *shape), TILE, GRANULE)
    assert found is not None
    x, names = torch.rand(TILE, *shape, generator=torch.Generator().manual_seed(0)), torch.arange(TILE)
    near = x.clone()
    for row in range(1, TILE):
        near[row, :, 2 : 2 + row % 8, 3 : 3 + row % 8] = 0
    calls, scores = [], []
    for price in (0, 10**18):
        monkeypatch.setattr(windows, "_CALL", price)
        look = Windows(found, x, TILE, GRANULE)
        look(names, x, lambda logits: logits[:, 0])
        sizes: list[int] = []
        through = look._through
        monkeypatch.setattr(look, "_through", lambda *given, through=through, sizes=sizes: sizes.append(given[-1]) or through(*given))
        scores.append(look(names, near, lambda logits: logits[:, 0]))
        calls.append(sizes)
    assert len(calls[0]) >= 5
    assert len(calls[1]) == 1
    assert max(calls[0]) == calls[1][0]
    assert torch.equal(*scores)
    assert torch.equal(scores[0], Target(model, model, TILE, granule=GRANULE).logits(near))


@needs_exact
@pytest.mark.parametrize(
    ("norm", "eps", "targeted", "stop"),
    [("linf", 0.06, False, True), ("linf", 0.12, True, False), ("l2", 1.5, False, False), ("l2", 1.5, True, True)],
    ids=["linf-away-verdict", "linf-toward-export", "l2-away-export", "l2-toward-verdict"],
)
def test_square_ends_the_same_with_and_without(norm: str, eps: float, targeted: bool, stop: bool) -> None:
    shape, _, build = CHAINS["pooled"]
    model = made(build, shape)
    target = Target(model, model, TILE, granule=GRANULE)
    x = torch.rand(24, *shape, generator=torch.Generator().manual_seed(1))
    labels = target.logits(x).argsort(1, descending=True)[:, int(targeted)]
    spec = Square(queries=20, restarts=2)

    def asked(rows: Tensor) -> Problem:
        return problem(x, labels, norm, eps, (0.0, 1.0), stop=stop, targeted=targeted).select(rows)

    every = torch.arange(24)
    near = catalogue.run(spec, eps, target, asked(every))
    assert target._plan is not None
    assert target._plan[2] is not None, "there was a plan, and it was used"
    full = catalogue.run(spec, eps, Spy(Target(model, model, TILE, granule=GRANULE), "score"), asked(every))
    assert 0 < int(full.success.sum()) < 24
    for one, other in zip(near, full, strict=True):
        assert torch.equal(one, other)
    some = catalogue.run(spec, eps, target, asked(every[7:23].flip(0)))
    assert torch.equal(some.x, near.x[7:23].flip(0))
    assert torch.equal(some.queries, near.queries[7:23].flip(0))


def test_scores_without_a_memory_are_asked_in_full() -> None:
    shape, _, build = CHAINS["plain"]
    spy = Spy(Target(made(build, shape), made(build, shape), TILE, granule=GRANULE), "score")
    x = torch.rand(3, *shape)
    look = Scores(spy).near(x)
    assert torch.equal(look(torch.arange(3), x, lambda logits: logits[:, 0]), spy.inner.logits(x))
    assert spy.asked == 3


def test_a_tape_does_again_what_it_saw() -> None:
    class Odd(nn.Module):
        """Several outputs, keywords, lists, and facts that are asked of tensors."""

        def forward(self, x: Tensor) -> Tensor:
            low, high = x.chunk(2, dim=1)
            high = torch.clamp(input=high, max=0.5)
            both = torch.cat([low * x.shape[1], high.reshape(len(x), -1)], dim=1)
            return both.sum(1, keepdim=True) if both.is_contiguous() and x.dim() == 2 else both

    x = torch.rand(4, 6)
    tape = record(Odd(), x)
    assert tape is not None
    assert [step.name for step in tape.steps][:2] == ["chunk", "clamp"]
    other = torch.rand(4, 6)
    assert torch.equal(play(tape.steps, {0: other}, tape.result), Odd()(other))


def test_there_is_no_tape_of_a_model_that_answers_with_something_else() -> None:
    assert record(Call(lambda x: torch.zeros(3)), torch.rand(3, 2)) is None
    assert record(Call(lambda x: (x, x)), torch.rand(3, 2)) is None
