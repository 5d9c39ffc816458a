"""For pytest: `--sparring-gate gate.yaml` makes a test of each rule, and the fixture `robustness` evaluates a model within a test."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sparring.contract.report import Report
    from sparring.contract.specs import DataSpec, ModelSpec
    from sparring.contract.verdict import Verdict
    from sparring.gate.policy import Read
    from sparring.sdk import Client


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--sparring-gate`."""
    group = parser.getgroup("sparring", "robustness of models")
    group.addoption("--sparring-gate", metavar="POLICY", type=Path, help="run this gate, each of its rules as a test")


@pytest.hookimpl(tryfirst=True)  # before -k and -m choose
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Adds a test for each rule of the gate."""
    policy: Path | None = config.getoption("--sparring-gate")
    if policy is not None:
        items.extend(Gate.from_parent(session, path=config.invocation_params.dir / policy).collect())


class NotHeld(Exception):
    """A rule does not hold, or could not be decided."""


class Gate(pytest.File):
    """A policy; its evaluation is run once, when the first of its rules is."""

    @cached_property
    def read(self) -> "Read":
        """The policy. Raises UsageError where it is none."""
        from sparring.errors import UsageProblem
        from sparring.gate.policy import read

        try:
            return read(self.path)
        except UsageProblem as error:
            raise pytest.UsageError(str(error)) from error

    @cached_property
    def verdict(self) -> "Verdict":
        """What is decided."""
        from sparring.gate.baselines import load
        from sparring.gate.run import Wanted, baseline_file, decide

        return decide(Wanted(self.read), load(baseline_file(self.read)))

    def collect(self) -> "list[RuleItem]":
        """A test for each rule."""
        return [RuleItem.from_parent(self, name=rule.id, at=at) for at, rule in enumerate(self.read.policy.rules)]


class RuleItem(pytest.Item):
    """One rule: fails where it is violated or inconclusive, is skipped where it was waived; a warning warns."""

    parent: Gate

    def __init__(self, *, at: int, **given: Any) -> None:
        super().__init__(**given)
        self.at = at

    def runtest(self) -> None:
        """Hold the rule against the evaluation."""
        from sparring.reports import gate_text

        verdict = self.parent.verdict
        rule = verdict.rules[self.at]
        if verdict.exit_code == 2:
            raise NotHeld(f"could not evaluate: {verdict.reason} {verdict.hint}".strip())
        said = f"{gate_text.status(rule)}: {gate_text.sentence(rule)}"
        if rule.status == "not_applied" or rule.waiver:
            pytest.skip(said)
        if rule.blocks:
            raise NotHeld(f"{said}\n{gate_text.place(verdict)}")
        if rule.status != "pass":
            self.warn(pytest.PytestWarning(said))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """A rule that does not hold needs no traceback."""
        from sparring.errors import SparringError

        if isinstance(excinfo.value, (NotHeld, SparringError)):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """The rule's line of the policy."""
        return self.path, self.parent.read.line("rules", self.at) - 1, f"rule {self.name}"


class Robustness:
    """Evaluates models, all on one service: that of SPARRING_URL, else this machine's, started when it is first needed."""

    def __init__(self, held: ExitStack) -> None:
        self._held = held

    @cached_property
    def _client(self) -> "Client":
        from sparring import local

        return self._held.enter_context(local.service())

    def __call__(
        self,
        model: str | Path,
        data: str | Path,
        *,
        threats: Sequence[str],
        attacks: Sequence[str] = (),
        suite: str | None = None,
        rows: int | None = None,
        seed: int = 0,
        model_spec: "ModelSpec | None" = None,
        data_spec: "DataSpec | None" = None,
    ) -> "Report":
        """The report of an evaluation.

        Args:
            model: a file, or the id or sha256 of an upload.
            data: likewise.
            threats: in a word each: `linf:8/255`.
            attacks: as `--attack` takes them: `pgd:steps=40`.
            suite: in place of attacks; `quick` where neither is given.
            rows: only the first so many.
            seed: of every draw.
            model_spec: what is declared about the model file.
            data_spec: what is declared about the data file.

        Raises:
            SparringError: there is no report, and why.
        """
        from sparring import parsing
        from sparring.commands.evaluate import Sides, job_maker
        from sparring.contract.jobs import Evaluate
        from sparring.progress import cancelled_if_interrupted, follow

        make = job_maker(
            Evaluate,
            threats=tuple(map(parsing.threat, threats)),
            attacks=tuple(map(parsing.attack, attacks)),
            suite=suite,
            rows=rows,
            seed=seed,
        )
        sides = Sides(str(model), str(data), model_spec, data_spec)
        job = self._client.jobs.submit(make(**sides.upload(self._client)))
        with cancelled_if_interrupted(self._client, job.id):
            follow(self._client, job.id)
        return self._client.jobs.report(job.id)


@pytest.fixture(scope="session")
def robustness() -> Iterator[Robustness]:
    """`robustness("model.pt2", "data.npz", threats=["linf:8/255"])` is the report of an evaluation."""
    with ExitStack() as held:
        yield Robustness(held)
