import json
import zipfile

import pytest

from sparring.commands.compare import compare
from sparring.errors import UsageProblem
from tests.client.gate import sample


@pytest.fixture
def zipped(tmp_path):
    def write(name, *given, **more):
        found = sample.evidence(*given, **more)
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("report.json", found.report.model_dump_json())
            archive.writestr("rows.csv", sample.rows_csv(found))
        return str(tmp_path / name)

    return write


def test_two_files_are_compared_without_a_service(zipped, capsys):
    compare(zipped("a.zip"), zipped("b.zip", stood=120))
    said = capsys.readouterr().out.splitlines()
    near = next(line for line in said if line.startswith("linf 4/255 "))
    for cell in ("75.0 %", "60.0 %", "30", "+15.0 points"):
        assert cell in near
    assert said[-1] == "linf 4/255, lost: rows " + ", ".join(map(str, range(120, 140))) + " and 10 more"


def test_as_json_every_row_that_flipped_is_told(zipped, capsys):
    compare(zipped("a.zip"), zipped("b.zip", right=185), as_json=True)
    clean, near = json.loads(capsys.readouterr().out)
    assert (clean["what"], clean["lost"], clean["won"]) == ("clean", [185, 186, 187, 188, 189], [])
    assert (clean["before"], near["flips"]["lost"]) == ({"count": 190, "total": 200}, 0)


def test_a_job_is_compared_with_a_file(zipped, worker, client, served, files, monkeypatch, capsys):
    from sparring.contract.jobs import Evaluate

    found = sample.evidence(stood=140)
    worker(files={"report.json": found.report.model_dump_json().encode(), "rows.csv": sample.rows_csv(found)})
    model, data = (family.upload(path).id for family, path in zip((client.models, client.datasets), files, strict=True))
    job = client.jobs.submit(Evaluate(model=model, data=data, threats=(sample.NEAR,)))
    client.jobs.wait(job.id)
    monkeypatch.setenv("SPARRING_URL", served.url)
    monkeypatch.setenv("SPARRING_KEY", served.key)
    compare(zipped("a.zip"), job.id)
    assert "+5.0 points" in capsys.readouterr().out


def test_what_cannot_be_compared_is_refused_with_the_difference(zipped, tmp_path):
    other = sample.evidence()
    data = other.report.data.model_copy(update={"sha256": "ef" * 32})
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("report.json", other.report.model_copy(update={"data": data}).model_dump_json())
        archive.writestr("rows.csv", sample.rows_csv(other))
    with pytest.raises(UsageProblem, match=r"cannot be compared: data abab.* against efef"):
        compare(zipped("a.zip"), str(tmp_path / "b.zip"))


def test_what_is_no_report_is_refused(zipped, tmp_path):
    (tmp_path / "text.zip").write_text("hello")
    with zipfile.ZipFile(tmp_path / "part.zip", "w") as archive:
        archive.writestr("report.json", "{}")
    for name, said in (("none.zip", "does not exist"), ("text.zip", "is no report.zip"), ("part.zip", "rows.csv"), ("", "is a folder")):
        with pytest.raises(UsageProblem, match=said):
            compare(zipped("a.zip"), str(tmp_path / name))
