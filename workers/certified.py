"""What a job that certifies says of its rows: by what they are certified, and what it means that one of them was broken."""

from collections.abc import Iterator, Sequence

from sparring.attacks import bounds
from sparring.contract.certificates import IntervalBounds
from sparring.contract.defenses import SmoothingCertificate
from sparring.contract.jobs import Craft, Evaluate
from sparring.contract.report import Finding
from sparring.contract.states import Reason
from sparring.workers import smoothing
from sparring.workers.shard import UNBROKEN, Ended


def method(job: Evaluate | Craft) -> str:
    """By what rows are proved to hold, in words; empty where the job does not ask for it."""
    if job.kind == "craft":
        return ""
    match job.certificate:
        case SmoothingCertificate():
            return smoothing.method(job.certificate)
        case IntervalBounds():
            return bounds.PLAIN
        case None if not job.skip_proved:
            return ""
    return bounds.METHOD


def contradicted(ended: Sequence[Ended]) -> int:
    """Rows that were proved to hold and were broken all the same, over all threats."""
    return sum(int((each.proved & (each.broken_by != UNBROKEN)).sum()) for each in ended)


def fault(job: Evaluate | Craft, ended: Sequence[Ended]) -> Reason | None:
    """Why there is no report: a proof and a counterexample of it. None where they agree."""
    bounded = job.kind == "evaluate" and job.certificate is not None and not isinstance(job.certificate, SmoothingCertificate)
    wrong = contradicted(ended) if bounded else 0
    if not wrong:
        return None
    message = f"{wrong} rows are certified and were broken at the same norm and eps: the bounds or the attacks are at fault."
    hint = "No figure of this job can be believed. This is a fault of the service; please report it with the model if you can."
    return Reason(code="internal", message=message, hint=hint, detail="certificate_broken")


def findings(job: Evaluate | Craft, ended: Sequence[Ended]) -> Iterator[Finding]:
    """Of rows that were proved and broken, where that is no reason to fail."""
    wrong = contradicted(ended)
    if not wrong or job.kind == "craft":
        return
    if isinstance(job.certificate, SmoothingCertificate):
        yield Finding(
            code="certificate_contradicted",
            message=f"{wrong} rows are certified, and an attack broke them by the majority of {smoothing.VOTES} draws; they count as both.",
            hint=f"Each certificate is wrong with a probability of at most {job.certificate.alpha:g}, and so many draws decide close rows "
            "wrongly now and then. More than a few such rows are a fault: please report it.",
            evidence={"count": wrong},
        )
        return
    yield Finding(
        code="proof_contradicted",
        message=f"{wrong} rows that a bound had proved robust were broken by an attack all the same; they count as broken.",
        hint="Rows that were proved and not attacked may be breakable too: run the job without skip_proved, and report this fault.",
        evidence={"count": wrong},
    )
