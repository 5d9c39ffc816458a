"""An endpoint as a row process sees it; the answers are the test's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from workers.orders import digits, order

from sparring.attacks.access import ahead
from sparring.contract.endpoints import ENDPOINT
from sparring.contract.runner import Ask, Order
from sparring.contract.specs import ModelSpec
from sparring.workers.asking import AGAIN, JUDGE, SEARCH, Asked, Rows, load_endpoint
from sparring.workers.errors import Refused
from sparring.workers.preflight import preflight

WEIGHTS = np.random.default_rng(0).normal(size=(64, 10))
NOISE = {"threats": [{"norm": "linf", "eps": 0.05}], "attacks": [{"kind": "noise"}]}
CPU = torch.device("cpu")


class Oracle:
    """Answers as a linear classifier does, and remembers what it was asked."""

    def __init__(self, *, labels: bool = False, noise: float = 0.0, crowd: float = 0.0, softmax: bool = False) -> None:
        self.asks: list[Ask] = []
        self.labels, self.noise, self.crowd, self.softmax = labels, noise, crowd, softmax

    def __call__(self, asks: list[Ask]) -> Rows:
        self.asks += asks
        found: Rows = []
        for ask in asks:
            x = np.stack([np.frombuffer(row, "<f4") for row in ask.rows]).astype(np.float64)
            scores = np.stack([row @ WEIGHTS for row in x]) + self.noise * ask.look + self.crowd * len(x)
            if self.softmax:
                odds = np.exp(scores - scores.max(1, keepdims=True))
                scores = odds / odds.sum(1, keepdims=True)
            found += [tuple(row) for row in (scores.argmax(1, keepdims=True) if self.labels else scores).tolist()]
        return found

    @property
    def rows(self) -> list[bytes]:
        return [row for ask in self.asks for row in ask.rows]


def spec(classes: int | None = None, **given: Any) -> ModelSpec:
    return ModelSpec(endpoint=ENDPOINT.validate_python({"kind": "endpoint", "url": "http://h/"} | given), classes=classes)


def asked(oracle: Oracle, look: int = SEARCH, **given: Any) -> Asked:
    declared = spec(**given)
    assert declared.endpoint
    return Asked(oracle, declared, declared.endpoint, look)


@pytest.fixture
def given(tmp_path: Path) -> Order:
    """An order on 40 digits; its model is put in by the test."""
    x, y = digits()
    np.savez(tmp_path / "data.npz", x=x[:40], y=y[:40])
    (tmp_path / "model.json").write_text("{}")
    return order(tmp_path, tmp_path / "model.json", tmp_path / "data.npz", NOISE)


def on(given: Order, declared: ModelSpec) -> Order:
    return given.model_copy(update={"model": given.model.model_copy(update={"format": "endpoint", "spec": declared})})


def test_each_distinct_row_is_asked_once_in_questions_of_a_batch() -> None:
    oracle, x = Oracle(), torch.rand(7, 1, 8, 8)
    scores = asked(oracle, batch=3)(x[[0, 1, 0, 2, 3, 4, 5, 6, 6]])
    assert torch.equal(scores[0], scores[2])
    assert torch.allclose(scores[3], x[2].flatten().double() @ torch.from_numpy(WEIGHTS))
    assert [len(ask.rows) for ask in oracle.asks] == [3, 3, 1]
    assert {ask.shape for ask in oracle.asks} == {(1, 8, 8)}


def test_labels_are_scores_without_a_tie() -> None:
    scores = asked(Oracle(labels=True), gives="labels", classes=10)(torch.rand(5, 64))
    assert scores.shape == (5, 10)
    assert scores.sum(1).tolist() == [1.0] * 5


def test_labels_beyond_the_classes_are_refused() -> None:
    with pytest.raises(Refused, match="but 3 classes are declared"):
        asked(Oracle(labels=True), gives="labels", classes=3)(torch.rand(50, 64))


def test_other_numbers_of_scores_are_refused() -> None:
    with pytest.raises(Refused, match="10 classes, not 7"):
        asked(Oracle(), classes=7)(torch.rand(2, 64))
    ragged = Asked(lambda asks: [(1.0, 2.0), (1.0, 2.0, 3.0)], spec(), spec().endpoint, SEARCH)  # type: ignore[arg-type]
    with pytest.raises(Refused, match="2 scores for one row and 3 for another"):
        ragged(torch.rand(2, 64))


def test_a_row_too_large_for_a_line_is_refused() -> None:
    with pytest.raises(Refused, match="too large for an endpoint"):
        asked(Oracle())(torch.zeros(1, 3, 1024, 1024))


def test_preflight_asks_each_row_once_and_a_few_again(given: Order) -> None:
    oracle = Oracle()
    facts, bench = preflight(on(given, spec()), CPU, 64, oracle)
    assert (facts.access, facts.parameters, facts.independent, facts.classes) == ("score", 0, True, 10)
    looks = [ask.look for ask in oracle.asks]
    assert looks.count(JUDGE) >= 40
    assert [looks.count(AGAIN + time) for time in range(4)] == [0, 16, 16, 16]
    before = len(oracle.asks)
    bench.again(bench.rows(torch.arange(5)))
    assert [ask.look for ask in oracle.asks[before:]] == [AGAIN] * 5, "the last look at a success is a fresh one"
    like = bench.rows(torch.arange(3))
    before = len(oracle.asks)
    bench.target.near(like)
    assert len(oracle.asks) == before, "nothing is asked to find a quicker way to ask"
    assert ahead(bench.target, 1) == 1, "no question is asked that may not be needed"


def test_an_endpoint_that_varies_or_mixes_rows_is_told_of(given: Order) -> None:
    facts, _ = preflight(on(given, spec()), CPU, 64, Oracle(noise=0.1))
    assert "not_deterministic" in [found.code for found in facts.findings]
    facts, _ = preflight(on(given, spec(batch=8)), CPU, 64, Oracle(crowd=0.01))
    assert not facts.independent
    assert "rows_interact" in [found.code for found in facts.findings]
    facts, _ = preflight(on(given, spec(batch=8)), CPU, 64, Oracle())
    assert facts.independent


def test_probabilities_are_attacked_by_their_logarithm(given: Order) -> None:
    for gives in ("scores", "probabilities"):
        facts, bench = preflight(on(given, spec(gives=gives)), CPU, 64, Oracle(softmax=True))
        (told,) = [found for found in facts.findings if found.code == "probabilities"]
        assert "logarithm" in told.message
        x = bench.rows(torch.arange(3))
        logits = x.flatten(1).double() @ torch.from_numpy(WEIGHTS)
        assert torch.allclose(bench.target.verdict(x), logits.log_softmax(1))
    facts, _ = preflight(on(given, spec(gives="labels", classes=10)), CPU, 64, Oracle(labels=True))
    assert "probabilities" not in [found.code for found in facts.findings], "ones and zeros are no probabilities"


def test_the_declared_first_layer_stands_before_the_endpoint(given: Order) -> None:
    oracle = Oracle()
    declared = spec(shape=[64]).model_copy(update={"mean": (0.5,), "std": (0.25,)})
    _, bench = preflight(on(given, declared), CPU, 64, oracle)
    x = bench.rows(torch.arange(1))
    assert {ask.shape for ask in oracle.asks} == {(64,)}
    assert ((x - 0.5) / 0.25).numpy().astype("<f4").tobytes() in oracle.rows


def test_nobody_to_ask_is_a_fault_of_ours() -> None:
    with pytest.raises(RuntimeError, match="nobody to ask"):
        load_endpoint(spec(), None)
