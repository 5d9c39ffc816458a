import zipfile
from datetime import timedelta

import pytest

from sparring import site
from sparring.contract.jobs import Evaluate
from sparring.contract.report import Report
from sparring.errors import UsageProblem
from sparring.reports.html import html
from tests.client.conftest import FILES
from tests.client.gate import sample
from tests.reports import factory


@pytest.fixture
def zipped(tmp_path):
    """A report.zip with the page of its report."""

    def write(name, days=0, page=None, **more):
        found = sample.evidence(**more)
        run = found.report.provenance.model_copy(update={"finished": factory.WHEN + timedelta(days=days)})
        report = found.report.model_copy(update={"provenance": run})
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("report.json", report.model_dump_json())
            archive.writestr("rows.csv", sample.rows_csv(found))
            if page != "":
                archive.writestr("report.html", page or html(report))
        return str(tmp_path / name)

    return write


def files_in(folder):
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def test_files_make_a_folder_without_a_service(zipped, tmp_path, sparring):
    done = sparring("report", "bundle", tmp_path / "site", zipped("a.zip"), zipped("b.zip", days=1, stood=120), url="http://127.0.0.1:1")
    assert (done.returncode, done.stderr) == (0, f"wrote {tmp_path / 'site'}: 2 reports\n")
    found = files_in(tmp_path / "site")
    index = found.pop("index.html").read_text()
    assert sorted(name.rpartition("/")[2] for name in found) == sorted(2 * ["report.html", "report.json", "rows.csv"] + ["compared.html"])
    assert all(f'href="{name}"' in index for name in found)
    report = next(path for name, path in found.items() if name.endswith("report.json"))
    assert report.with_name("report.html").read_text() == html(Report.model_validate_json(report.read_text()))
    assert "linf 4/255, lost" in next(path for name, path in found.items() if name.endswith("compared.html")).read_text()


def test_the_same_reports_make_the_same_folder_and_each_is_listed_once(zipped, tmp_path):
    one, other = zipped("a.zip"), zipped("b.zip", stood=140)
    (tmp_path / "second").mkdir()
    for name in ("first", "second"):
        assert site.write(tmp_path / name, [one, other, one]) == 2
    first, second = (files_in(tmp_path / name) for name in ("first", "second"))
    assert {name: path.read_bytes() for name, path in first.items()} == {name: path.read_bytes() for name, path in second.items()}


def test_all_evaluations_of_a_service_are_listed(served, client, files, worker, tmp_path, sparring):
    found = sample.evidence()
    told = {**FILES, "report.json": found.report.model_dump_json().encode(), "rows.csv": sample.rows_csv(found)}
    worker(files={**told, "report.html": html(found.report).encode()})
    model, data = (family.upload(path).id for family, path in zip((client.models, client.datasets), files, strict=True))
    client.jobs.wait(client.jobs.submit(Evaluate(model=model, data=data, threats=(sample.NEAR,))).id)
    done = sparring("report", "bundle", tmp_path / "site")
    assert (done.returncode, done.stderr) == (0, f"wrote {tmp_path / 'site'}: 1 report\n")
    assert any(name.endswith("report.html") for name in files_in(tmp_path / "site"))


def test_a_service_without_evaluations_gives_nothing_to_list(tmp_path, sparring):
    done = sparring("report", "bundle", tmp_path / "site")
    assert done.returncode == 4
    assert "no evaluation that has ended" in done.stderr
    assert not (tmp_path / "site").exists()


def test_a_zip_of_an_earlier_version_is_listed_without_a_page(zipped, tmp_path, capsys):
    site.write(tmp_path / "site", [zipped("a.zip", page="")])
    assert "holds no page" in capsys.readouterr().err
    assert not any(name.endswith("report.html") for name in files_in(tmp_path / "site"))


def test_a_page_in_which_scripts_could_run_is_not_published(zipped, tmp_path):
    sound = html(sample.evidence().report)
    for page in (
        "<script>alert(1)</script>",
        sound.replace("default-src 'none'", "default-src *"),
        sound.replace("<head>", "<head><script>"),
    ):
        with pytest.raises(UsageProblem, match="does not begin as a report's does"):
            site.write(tmp_path / "site", [zipped("a.zip"), zipped("b.zip", stood=140, page=page)])
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip", "b.zip"}


def test_a_folder_in_use_and_names_of_nothing_are_refused(zipped, tmp_path):
    sound = zipped("a.zip")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("mine")
    for folder, name, said in (
        (tmp_path / "used", sound, "is no empty folder"),
        (tmp_path / "a.zip", sound, "is no empty folder"),
        (tmp_path / "none" / "site", sound, "does not exist"),
        (tmp_path / "site", str(tmp_path / "none.zip"), "does not exist"),
    ):
        with pytest.raises(UsageProblem, match=said):
            site.write(folder, [name])
    assert (tmp_path / "used" / "file").read_text() == "mine"
