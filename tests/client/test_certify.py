"""`sparring certify`, against a real server and a worker that the test plays."""

import pytest

from sparring.contract.certificates import LinearBounds
from sparring.contract.defenses import SmoothingCertificate
from sparring.contract.jobs import Certify
from sparring.parsing import certificate
from sparring.storage import jobs
from tests.client.conftest import FILES
from tests.reports import factory


def certified():
    """The sample report, 100 rows certified under each threat."""
    made = factory.report()
    return made.model_copy(
        update={
            "job": made.job.model_copy(update={"certificate": LinearBounds()}),
            "threats": tuple(result.model_copy(update={"certified": 100}) for result in made.threats),
            "provenance": made.provenance.model_copy(update={"proof": "lines"}),
        }
    )


def test_the_truth_is_told_from_both_sides(sparring, files, worker, served, tmp_path):
    worker(files=FILES | {"report.json": certified().model_dump_json().encode()})
    done = sparring("certify", *files, "--eps", "4/255", "--rows", "50", "-o", "report.json")
    assert done.returncode == 0, done.stderr
    assert "Certified: 10.0 % (100 of 1,000 rows), by lines. No attack broke 64.0 %." in done.stdout
    (job,) = jobs.list_jobs(served.engine, "default", limit=5).items
    assert isinstance(job.job, Certify)
    assert (job.job.method, job.job.rows, job.job.evaluation().suite) == (LinearBounds(), 50, "standard")


def test_a_method_is_written_as_attacks_are():
    found = certificate("smoothing:sigma=0.5,samples=500,alpha=0.01")
    assert found == SmoothingCertificate(sigma=0.5, samples=500, alpha=0.01)
    assert certificate("crown") == LinearBounds()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--eps", "0.1", "--method", "luck"), "nothing certifies by 'luck'"),
        (("--eps", "0.1", "--method", "smoothing"), "smoothing certifies nothing in norm linf"),
        (("--eps", "0.1", "--method", "crown:sigma=1"), "crown has no setting 'sigma'"),
        (("--eps", "0.1", "--norm", "l0"), "crown certifies nothing in norm l0"),
        ((), "No --eps is given"),
    ],
)
def test_bad_usage_ends_with_4_before_any_work(sparring, files, served, arguments, said):
    done = sparring("certify", *files, *arguments)
    assert done.returncode == 4, done.stderr
    assert said in " ".join(done.stderr.split())
    assert served.stored() == []
