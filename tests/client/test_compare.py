import io
import json
import zipfile
from base64 import b64encode

import pytest

from sparring.commands.compare import compare
from sparring.contract.jobs import Evaluate
from sparring.errors import UsageProblem
from sparring.reports.pictures import Album, Broken
from sparring.reports.png import png
from tests.client.gate import sample

DOT = png(b"\x07", 1, 1, 1)


@pytest.fixture
def zipped(tmp_path):
    def write(name, *given, pictures=None, **more):
        found = sample.evidence(*given, **more)
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("report.json", found.report.model_dump_json())
            archive.writestr("rows.csv", sample.rows_csv(found))
            if pictures is not None:
                archive.writestr("pictures.zip", pictures)
        return str(tmp_path / name)

    return write


def kept(rows):
    file = io.BytesIO()
    with Album(file, new=True) as album:
        for row in rows:
            album.keep_original(row, DOT)
            album.keep_broken(0, row, Broken(DOT, DOT))
    return file.getvalue()


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
    found = sample.evidence(stood=140)
    worker(files={"report.json": found.report.model_dump_json().encode(), "rows.csv": sample.rows_csv(found)})
    model, data = (family.upload(path).id for family, path in zip((client.models, client.datasets), files, strict=True))
    job = client.jobs.submit(Evaluate(model=model, data=data, threats=(sample.NEAR,)))
    client.jobs.wait(job.id)
    monkeypatch.setenv("SPARRING_URL", served.url)
    monkeypatch.setenv("SPARRING_KEY", served.key)
    compare(zipped("a.zip"), job.id)
    assert "+5.0 points" in capsys.readouterr().out


def test_a_page_shows_what_flipped(zipped, tmp_path, capsys):
    page = tmp_path / "page.html"
    compare(zipped("a.zip"), zipped("b.zip", stood=140, pictures=kept(range(200))), html=page)
    assert capsys.readouterr().err == f"wrote {page}\n"
    assert page.read_text().count(b64encode(DOT).decode()) == 3 * 10
    compare(zipped("a.zip"), zipped("b.zip", stood=140), html=page)
    assert "No pictures of them were kept" in page.read_text()
    assert "<img" not in page.read_text()


def test_a_page_of_two_jobs_fetches_their_pictures(worker, client, served, files, monkeypatch, tmp_path):
    found = [sample.evidence(stood=stood) for stood in (150, 140)]
    jobs = []
    model, data = (family.upload(path).id for family, path in zip((client.models, client.datasets), files, strict=True))
    for each in found:
        submitted = client.jobs.submit(Evaluate(model=model, data=data, threats=(sample.NEAR,)))
        told = {"report.json": each.report.model_dump_json().encode(), "rows.csv": sample.rows_csv(each)}
        worker(files={**told, "pictures.zip": kept(range(200))})
        jobs.append(client.jobs.wait(submitted.id).id)
    monkeypatch.setenv("SPARRING_URL", served.url)
    monkeypatch.setenv("SPARRING_KEY", served.key)
    compare(*jobs, html=tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().count("<figure>") == 10


def test_a_page_that_cannot_be_made_is_told(zipped, tmp_path):
    sound = zipped("a.zip")
    for place, said in ((tmp_path, "this is a folder"), (tmp_path / "none" / "page.html", "does not exist")):
        with pytest.raises(UsageProblem, match=said):
            compare(sound, sound, html=place)
    damaged = bytearray(kept(range(200)))
    damaged[damaged.index(DOT, damaged.index(b"original/145.png")) + 20] ^= 1
    with pytest.raises(UsageProblem, match=r"is damaged: original/145\.png"):
        compare(sound, zipped("b.zip", stood=145, pictures=bytes(damaged)), html=tmp_path / "page.html")
    with pytest.raises(UsageProblem, match=r"no report\.zip: pictures\.zip cannot be read"):
        compare(sound, zipped("c.zip", pictures=b"hello"), html=tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
    compare(sound, zipped("c.zip", pictures=b"hello"))


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
