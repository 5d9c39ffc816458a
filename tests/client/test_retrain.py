"""`sparring retrain` and `sparring defenses`, against a real server and a worker that the test plays."""

import json
import shlex
from pathlib import Path

import pytest

from sparring import parsing
from sparring.contract.catalogue import DEFENSE_INFOS
from sparring.contract.defenses import DEFENSES, EnsembleTraining, describe
from sparring.contract.retrain import Retrain
from sparring.contract.threat import Threat
from sparring.errors import UsageProblem
from sparring.outputs import outputs
from sparring.parsing import DEFENSE_ALIASES, DEFENSE_KINDS
from sparring.reports.card import card, robustbench
from sparring.sdk import Client
from sparring.storage import jobs
from tests.client.conftest import FILES
from tests.reports import factory, retrained
from tests.service.conftest import pt2

TRAINED = {
    "report.json": retrained.report().model_dump_json().encode(),
    "report.html": b"<!doctype html><title>page</title>",
    "report.md": b"# words",
    "model.pt2": b"PK graph",
    "model.safetensors": b"weights",
    "test.npz": b"PK rows",
}


def submitted(served) -> Retrain:
    (found,) = jobs.list_jobs(served.engine, "default", limit=5).items
    assert isinstance(found.job, Retrain)
    return found.job


def test_a_model_goes_in_and_a_better_one_comes_back(sparring, files, worker, served, tmp_path):
    worker(files=TRAINED)
    done = sparring(
        *("retrain", *files, "--defense", "pgd-at:eps=8/255", "--defense", "l1", "--defense", "dropout:p=0.2"),
        *("--epochs", "7", "--training", "optimizer=sgd,augment=flip+shift", "--seed", "3", "--patience", "2", "--scratch"),
        *("-o", "new.pt2", "-o", "new.safetensors", "-o", "rows.npz", "-o", "report.html"),
    )
    assert done.returncode == 0, done.stderr
    for name, artifact in (("new.pt2", "model.pt2"), ("new.safetensors", "model.safetensors"), ("rows.npz", "test.npz")):
        assert (tmp_path / name).read_bytes() == TRAINED[artifact]
    lines = done.stdout.splitlines()
    assert lines[0].startswith("pgd: robust accuracy 82.0 % [79.5, 84.3] under linf 4/255, before 64.0 % [61.0, 66.9]")
    assert any("Use the model that pgd gave." in line for line in lines)
    assert any(line.startswith("as uploaded") for line in lines)
    job = submitted(served)
    assert job.names == ("pgd", "weight_penalty", "dropout")
    assert (job.training.epochs, job.training.optimizer, job.training.augment, job.training.seed) == (7, "sgd", ("flip", "shift"), 3)
    assert (job.seed, job.patience, job.scratch, job.threats) == (3, 2, True, ())


def test_other_rows_are_uploaded_and_named(sparring, files, worker, served, tmp_path):
    worker(files=TRAINED)
    for name in ("spare.npz", "fresh.npz"):
        (tmp_path / name).write_bytes(files[1].read_bytes())
    given = ("--unlabelled", "spare.npz", "--test", "fresh.npz", "--held-out", "0", "--eps", "4/255", "--threat", "l2:0.5")
    done = sparring("retrain", *files, "--defense", "vat", *given, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(TRAINED["report.json"])
    job = submitted(served)
    assert job.unlabelled
    assert job.test
    assert job.threats == (Threat(norm="linf", eps="4/255"), Threat(norm="l2", eps=0.5))


def test_surrogates_are_uploaded_and_named_in_every_ensemble(sparring, files, worker, served, tmp_path):
    worker(files=TRAINED)
    (tmp_path / "other.pt2").write_bytes(pt2())
    with Client(served.url, served.key) as client:
        known = client.models.upload(files[0], name="known").id
        third = client.models.upload(files[0], name="third").id
    defenses = ("--defense", "pgd", "--defense", f"ensemble:eps=0.1,models={third}", "--defense", "ensemble:clean=false")
    done = sparring("retrain", *files, *defenses, "--surrogate", "other.pt2", "--surrogate", known)
    assert done.returncode == 0, done.stderr
    pgd, one, two = submitted(served).defenses
    assert pgd.kind == "pgd"
    assert isinstance(one, EnsembleTraining)
    assert isinstance(two, EnsembleTraining)
    assert (one.eps, one.clean, two.clean) == (0.1, True, False)
    with Client(served.url, served.key) as client:
        names = [[client.models.get(ref).name for ref in each.models] for each in (one, two)]
    assert names == [["third", "other.pt2", "known"], ["other.pt2", "known"]]


def test_a_surrogate_that_is_not_there_is_named_where_the_job_names_it(sparring, files, served):
    absent = "mdl_" + "0" * 20
    done = sparring("retrain", *files, "--defense", "ensemble", "--surrogate", absent)
    assert done.returncode == 2
    assert f"defenses.0.models.0: there is no model '{absent}'" in done.stderr


def test_reports_by_hand(sparring, files, worker, served, tmp_path):
    worker(files=TRAINED)
    assert sparring("retrain", *files, "--defense", "vat").returncode == 0
    (job,) = jobs.list_jobs(served.engine, "default", limit=5).items
    assert "handed on" in sparring("report", "show", job.id).stdout
    assert sparring("report", "export", job.id, "-o", "again.pt2").returncode == 0
    assert (tmp_path / "again.pt2").read_bytes() == TRAINED["model.pt2"]
    assert sparring("report", "export", job.id, "-o", "card.md", "-o", "robustbench.json").returncode == 0
    assert (tmp_path / "card.md").read_text() == card(retrained.report().best.after)
    assert (tmp_path / "robustbench.json").read_text() == robustbench(retrained.report().best.after)
    assert "defenses  vat" in " ".join(sparring("jobs", "show", job.id).stdout.split("\n")).replace("   ", "  ")
    with Client(served.url, served.key) as client:
        with pytest.raises(UsageProblem, match="its report is of another kind") as refused:
            client.jobs.report(job.id)
        assert "retrained" in refused.value.hint
        assert client.jobs.retrained(job.id) == retrained.report()


def test_a_report_of_an_evaluation_is_no_report_of_a_training(sparring, files, worker, served):
    worker(files=FILES)
    assert sparring("evaluate", *files, "--eps", "8/255").returncode == 0
    (job,) = jobs.list_jobs(served.engine, "default", limit=5).items
    with Client(served.url, served.key) as client:
        with pytest.raises(UsageProblem, match="has trained nothing"):
            client.jobs.retrained(job.id)
        assert client.jobs.any_report(job.id) == factory.report()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Missing option '--defense'"),
        (("--defense", "nuke"), "there is no defense 'nuke'"),
        (("--defense", "pgd:step=1"), "pgd has no setting 'step'"),
        (("--defense", "pgd:eps"), "'eps' is not of the form setting=value"),
        (("--defense", "pgd:eps=1,eps=2"), "eps is given twice"),
        (("--defense", "pgd:eps=x"), "eps: must be a number"),
        (("--defense", "vat", "--defense", "vat"), "the same defense is listed twice"),
        (("--defense", "vat", "--training", "optimiser=sgd"), "the training has no setting 'optimiser'"),
        (("--defense", "vat", "--epochs", "3", "--training", "epochs=4"), "epochs is given twice"),
        (("--defense", "vat", "--epochs", "0"), "epochs: must be greater than or equal to 1"),
        (("--defense", "vat", "--held-out", "0"), "give test, or a share above 0"),
        (("--defense", "pgd", "--unlabelled", "net.pt2"), "none of the defenses learns from rows without labels"),
        (("--defense", "pgd", "--surrogate", "net.pt2"), "--surrogate: none of the defenses moves rows against surrogates"),
        (("--defense", "ensemble"), "ensemble has no surrogate: upload other models"),
        (("--defense", "ensemble", "--surrogate", "absent.pt2"), "absent.pt2"),
        (("--defense", "ensemble", *("--surrogate", "net.pt2") * 21), "--surrogate: models"),
        (("--defense", "ensemble:models=x"), "models"),
        (("--defense", "vat", "-o", "rows.csv"), "nothing is written as .csv"),
        (("--defense", "vat", "--suite", "slow"), "suite: must be 'quick'"),
        (("--defense", "vat", "--precision", "half"), "precision: must be 'exact' or 'fast'"),
    ],
)
def test_bad_usage_ends_with_4_before_any_work(sparring, files, served, arguments, said):
    done = sparring("retrain", *files, *arguments)
    assert done.returncode == 4, done.stderr
    assert said in " ".join(done.stderr.split()), done.stderr
    assert served.stored() == []


def test_the_list_of_defenses_has_all_and_their_short_names(sparring):
    said = sparring("defenses", "list", url="http://127.0.0.1:1").stdout
    for info in DEFENSE_INFOS.values():
        row = next(line for line in said.splitlines() if line.startswith(f"{info.kind} "))
        assert info.title in row
        assert f" {info.gradients} " in row
    assert ["pgd-at", "pgd"] in [line.split() for line in said.splitlines()]
    listed = sparring("defenses", "list", "--json", url="http://127.0.0.1:1")
    assert json.loads(listed.stdout) == [info.model_dump(mode="json") for info in DEFENSE_INFOS.values()]


@pytest.mark.parametrize("name", [*map(describe.kind, DEFENSES), *DEFENSE_ALIASES])
def test_a_defense_is_shown_with_every_setting_and_an_example_that_holds(sparring, name):
    done = sparring("defenses", "show", name)
    assert done.returncode == 0, done.stderr
    defense = DEFENSE_KINDS[DEFENSE_ALIASES.get(name, name).partition(":")[0]]
    assert describe.description(defense)[0] in done.stdout
    for setting in describe.settings(defense):
        row = next(line for line in done.stdout.splitlines() if line.startswith(f"{setting.name} ") and setting.bounds in line)
        assert setting.default in row
    example = shlex.split(done.stdout.splitlines()[-1])
    assert isinstance(parsing.defense(example[example.index("--defense") + 1]), defense)


def test_a_defense_that_is_not_there_is_bad_usage(sparring):
    done = sparring("defenses", "show", "nuke")
    assert done.returncode == 4
    assert "Known are plain" in done.stderr


def test_suffixes_mean_the_files_of_a_training():
    paths = [Path(f"a{suffix}") for suffix in (".pt2", ".safetensors", ".onnx", ".pt", ".npz", ".json")]
    wanted = ["model.pt2", "model.safetensors", "model.onnx", "model.pt", "test.npz", "report.json"]
    assert [one.artifact for one in outputs(paths, training=True)] == wanted
