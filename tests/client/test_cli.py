import json
import os
import shlex
import signal
import subprocess
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from sparring import cli, parsing, show
from sparring.commands import evaluate
from sparring.contract.attacks import ATTACKS, PGD, SUITES, describe
from sparring.contract.catalogue import ATTACK_INFOS, SUITE_INFOS
from sparring.contract.jobs import Craft
from sparring.contract.report import Finding, Report, Trust
from sparring.contract.states import Reason
from sparring.contract.threat import Threat
from sparring.errors import ApiError
from sparring.parsing import ALIASES, KINDS
from sparring.reports import rerun, text
from sparring.sdk import Client
from sparring.storage import jobs, keys
from tests.client.conftest import FILES
from tests.reports import factory

SPARRING = Path(sys.executable).parent / "sparring"
HEAVY = {"torch", "numpy", "fastapi", "rq", "redis", "sqlalchemy", "matplotlib"}


def test_help_imports_nothing_heavy():
    program = (
        "import sys; sys.argv = ['sparring', '--help']\nfrom sparring.cli import main\ntry: main()\nfinally: print(sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.rpartition("[")[2].replace("'", "").strip("]\n").split(", "))
    assert "sparring.cli" in loaded
    assert not HEAVY & loaded


@pytest.mark.parametrize(
    "arguments",
    [("attacks", "list"), ("attacks", "show", "pgd"), ("suites", "list"), ("suites", "show", "quick"), ("version",), ("--version",)],
)
def test_what_needs_no_service_asks_none(sparring, arguments):
    done = sparring(*arguments, url="http://127.0.0.1:1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


def test_the_list_of_attacks_has_all_and_their_short_names(sparring):
    said = sparring("attacks", "list").stdout
    for attack in ATTACKS:
        row = next(line for line in said.splitlines() if line.startswith(f"{describe.kind(attack)} "))
        for cell in (attack.title, attack.access, attack.knowledge, ", ".join(attack.norms), attack.paper[:60]):
            assert cell in row
    assert "apgd-t    apgd:loss=dlr,targets=9" in said


@pytest.mark.parametrize(("noun", "infos"), [("attacks", ATTACK_INFOS), ("suites", SUITE_INFOS)], ids=["attacks", "suites"])
def test_lists_are_json_on_request_as_the_service_tells_them(sparring, noun, infos):
    done = sparring(noun, "list", "--json", url="http://127.0.0.1:1")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == [info.model_dump(mode="json") for info in infos.values()]


@pytest.mark.parametrize("name", [*map(describe.kind, ATTACKS), *ALIASES])
def test_an_attack_is_shown_with_every_setting_and_an_example_that_holds(sparring, name):
    done = sparring("attacks", "show", name)
    assert done.returncode == 0, done.stderr
    attack = KINDS[ALIASES.get(name, name).partition(":")[0]]
    assert describe.summary(attack) in done.stdout
    for setting in describe.settings(attack):
        row = next(line for line in done.stdout.splitlines() if line.startswith(f"{setting.name} ") and setting.default in line)
        assert setting.bounds[:40] in row, "the first line of it: a long one is wrapped"
    example = shlex.split(done.stdout.splitlines()[-1])
    assert isinstance(parsing.attack(example[-1]), attack)
    assert ("losses" in done.stdout) == ("loss" in attack.model_fields)


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_is_shown_as_attacks_that_can_be_asked_for(sparring, name):
    said = sparring("suites", "show", name).stdout
    version, members = SUITES[name]
    assert version in said
    written = [line.split()[-1] for line in said.splitlines() if line.startswith(tuple(each.title for each in members))]
    assert tuple(map(parsing.attack, written)) == members


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("attacks", "show", "nuke"), "there is no attack 'nuke'"), (("suites", "show", "slow"), "Known are quick, standard, thorough")],
)
def test_what_is_not_in_the_catalogue_is_bad_usage(sparring, arguments, said):
    done = sparring(*arguments)
    assert done.returncode == 4
    assert said in done.stderr


def test_a_report_on_the_terminal_tells_of_cascades_and_of_smallest_changes(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    show.report(factory.cascade(minimal=(factory.minimal("fab", reach=0.1), factory.minimal("deepfool", found=9))))
    said = capsys.readouterr().out
    assert text.CASCADE in said
    assert "worst case so far" in said
    rows = [line.split() for line in said.splitlines()]
    assert ["fab", "linf", "912", "of", "912", "0.05"] in rows
    assert ["deepfool", "linf", "9", "of", "912", "–"] in rows
    show.report(factory.report())
    plain = capsys.readouterr().out
    assert "cascade" not in plain
    assert "smallest" not in plain


def test_a_report_on_the_terminal_has_a_table_of_corruptions(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    show.report(factory.corrupted("shot_noise", "contrast"))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["shot", "noise", "90.0", "%", "80.0", "%", "70.0", "%", "60.0", "%", "50.0", "%", "70.0", "%"] in rows
    assert ["mean", "of", "all", "70.0", "%"] in rows
    show.report(factory.report())
    assert "corruption" not in capsys.readouterr().out


def test_evaluate_prints_the_headline_first_and_writes_the_files(sparring, files, worker, tmp_path):
    worker()
    outs = ("report.html", "report.json", "report.md", "rows.csv", "rows.parquet", "examples.npz")
    done = sparring("evaluate", *files, "--eps", "8/255", "--attack", "pgd:steps=20", *(part for name in outs for part in ("-o", name)))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("robust accuracy 64.0 % [61.0, 66.9] under linf 4/255 (worst of 3 attacks), clean accuracy 91.2 %")
    assert "no sign was found, but checks were left out" in done.stdout
    assert lines[-1].startswith("report: sparring report open job_")
    for name in outs:
        assert (tmp_path / name).read_bytes() == FILES[name]
    assert "running: attack 50 %" in done.stderr
    assert "wrote rows.csv" in done.stderr


def test_evaluate_json_prints_the_report_and_nothing_else(sparring, files, worker, served):
    worker()
    flags = ("--mean", "0.5", "--std", "0.25", "--bounds", "0,1", "--rows", "10", "--seed", "3", "--targeted", "--suite", "quick")
    done = sparring("evaluate", *files, "--eps", "0.1", "--eps", "0.2", "--threat", "l2:1", *flags, "--json")
    assert Report.model_validate_json(done.stdout) == factory.report()
    asked = jobs.list_jobs(served.engine, "default", limit=1, cursor=None).items[0].job
    assert [(t.norm, t.eps, t.targeted) for t in asked.threats] == [("linf", 0.1, True), ("linf", 0.2, True), ("l2", 1.0, True)]
    assert (asked.rows, asked.seed, asked.suite) == (10, 3, "quick")


def test_evaluate_of_ids_uploads_nothing(sparring, files, worker, served):
    model = json.loads(sparring("models", "push", files[0], "--json").stdout)
    data = json.loads(sparring("datasets", "push", files[1], "--bounds", "none", "--json").stdout)
    before = served.stored()
    worker(files={"report.json": FILES["report.json"]})
    done = sparring("evaluate", model["id"], f"sha256:{data['sha256']}", "--eps", "8/255", "-o", "examples.npz")
    assert done.returncode == 0, done.stderr
    assert len(served.stored()) == len(before) + 1
    assert "examples.npz is not written: the job left no examples.npz" in done.stderr


def test_a_job_that_fails_ends_with_2_and_says_why_and_what_to_do(sparring, files, worker):
    worker(reason=Reason(code="bad_model", message="The model has no output.", hint="Export it again."))
    done = sparring("evaluate", *files, "--eps", "8/255", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "failed: The model has no output. (bad_model)" in done.stderr
    assert "Export it again." in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--eps", "8/255", "--attack", "pgd:step=1"), "pgd has no setting 'step'"),
        ((), "How far may the attacker go"),
        (("--eps", "x"), "--eps x: must be a number"),
        (("--eps", "8/255", "-o", "report.pdf"), "nothing is written as .pdf"),
        (("--eps", "8/255", "-o", "nowhere/report.html"), "does not exist"),
        (("--eps", "8/255", "--suite", "quick", "--attack", "fgsm"), "exclude each other"),
        (("--norm", "l2", "--eps", "1", "--attack", "fgsm"), "fgsm is not defined for norm l2"),
        (("--eps", "1", "--eps", "1"), "the same threat is listed twice"),
        (("--eps", "1", "--device", "tpu"), "device: must be"),
        (("--eps", "1", "--precision", "half"), "precision: must be 'exact' or 'fast'"),
        (("--eps", "1", "--corruption", "fog"), "--corruption fog: there is no such thing"),
        (("--eps", "1", "--suite", "slow"), "suite: must be 'quick', 'standard', 'thorough', 'levels' or 'defended'"),
        (("--eps", "1", "--targeted", "--attack", "fab"), "fab cannot aim at a class"),
        (("--eps", "1", "--bounds", "1,0"), "wrong way round"),
        (("--eps", "1", "--rows", "many"), "rows"),
        (("--eps", "1", "--frobnicate"), "--frobnicate"),
    ],
)
def test_bad_usage_ends_with_4_before_any_work(sparring, files, served, arguments, said):
    done = sparring("evaluate", *files, *arguments)
    assert done.returncode == 4, done.stderr
    assert said in done.stderr
    assert served.stored() == []


def test_declaring_anything_about_an_id_is_bad_usage(sparring, files):
    done = sparring("evaluate", "mdl_" + "a" * 20, files[1], "--eps", "1", "--layout", "NHWC")
    assert done.returncode == 4
    assert "its layout cannot be declared now" in done.stderr


def test_an_unknown_id_and_a_service_that_is_away_end_with_2(sparring, free_port):
    done = sparring("models", "show", "mdl_" + "a" * 20)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    away = sparring("models", "list", url=f"http://127.0.0.1:{free_port}")
    assert away.returncode == 2
    assert "cannot be reached" in away.stderr
    assert "SPARRING_URL" in away.stderr


def test_craft_asks_for_one_threat_and_writes_the_dataset(sparring, files, worker, tmp_path):
    worker()
    done = sparring("craft", *files, "--eps", "8/255", "--attack", "pgd", "-o", "hard.npz")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "hard.npz").read_bytes() == FILES["crafted.npz"]
    assert sparring("craft", *files, "--eps", "1", "--eps", "2", "--attack", "pgd", "-o", "hard.npz").returncode == 4


@pytest.mark.parametrize("kind", ["evaluate", "craft", "suite", "cascade"])
def test_the_commands_a_report_prints_make_the_same_job(sparring, tmp_path, monkeypatch, kind):
    made = []
    monkeypatch.setattr(evaluate, "run", lambda sides, make, *rest: made.append((sides, make)))
    sample = factory.report()
    job = sample.job
    if kind == "craft":
        threat = Threat(norm="linf", eps="8/255", targeted=True)
        job = Craft(model=job.model, data=job.data, threat=threat, attack=PGD(steps=7), rows=9, device="cpu")
    elif kind == "suite":
        job = job.model_copy(update={"attacks": (), "suite": "quick", "knowledge": frozenset({"white"}), "timeout": 60})
    elif kind == "cascade":
        job = job.model_copy(update={"attacks": (), "suite": "standard", "cascade": False, "skip_proved": True, "precision": "fast"})
    sample = sample.model_copy(update={"job": job})
    for name in (sample.model.name, sample.data.name):
        (tmp_path / name).write_bytes(b"content")
    for line in (rerun.command(sample), rerun.command_from_files(sample)):
        done = sparring(*shlex.split(line)[1:])
        assert done.returncode == 0, done.stderr
    assert [make(model=job.model, data=job.data) for _, make in made] == [job, job]
    by_id, by_file = (sides for sides, _ in made)
    assert (by_id.model_ref, by_id.data_ref) == (job.model, job.data)
    assert (by_file.model_spec, by_file.data_spec) == (sample.model.spec, sample.data.spec)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_cancels_its_job(served, files, number, code, eventually):
    variables = {**os.environ, "SPARRING_URL": served.url, "SPARRING_KEY": served.key}
    command = [SPARRING, "evaluate", *files, "--eps", "8/255"]
    # A shell's background job, as the tests may be one, hands down an ignored SIGINT.
    heed = partial(signal.signal, number, signal.SIG_DFL)
    with subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=heed) as process:
        # The first line is told by the event stream: from then on the job is waited for.
        first = process.stderr.readline()
        while not first.startswith("queued\n"):
            first = process.stderr.readline()
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "cancelled job_" in err
    assert jobs.list_jobs(served.engine, "default", limit=1, cursor=None).items[0].state == "cancelled"


def test_jobs_and_reports_by_hand(sparring, files, worker, tmp_path, monkeypatch):
    worker()
    job = sparring("evaluate", *files, "--eps", "8/255").stdout.split()[-1]
    assert f"{job}  evaluate  succeeded" in sparring("jobs", "list").stdout
    assert job not in sparring("jobs", "list", "--state", "failed").stdout
    assert "rows.csv (4 B)" in sparring("jobs", "show", job).stdout
    assert json.loads(sparring("jobs", "show", job, "--json").stdout)["state"] == "succeeded"
    assert "succeeded" in sparring("jobs", "watch", job).stdout
    assert sparring("report", "show", job).stdout.startswith("robust accuracy 64.0 %")
    assert sparring("report", "export", job, "-o", "again.csv").returncode == 0
    assert (tmp_path / "again.csv").read_bytes() == FILES["rows.csv"]
    assert [one["id"] for one in json.loads(sparring("jobs", "list", "--json").stdout)] == [job]
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: not opened.append(address))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    page = Path(sparring("report", "open", job).stdout.strip())
    assert page.read_bytes() == FILES["report.html"]
    assert Path(sparring("report", "open", job).stdout.strip()) == page
    assert opened == 2 * [page.as_uri()]
    monkeypatch.setattr("webbrowser.open", lambda address: False)
    assert "no browser was found" in sparring("report", "open", job).stderr
    assert list((tmp_path / "cache").rglob("*.*")) == [page]
    assert sparring("jobs", "cancel", job).returncode == 2
    assert sparring("jobs", "rm", job).returncode == 0
    assert sparring("jobs", "show", job).returncode == 2


def test_uploads_by_hand(sparring, files):
    model = json.loads(sparring("models", "push", files[0], "--name", "mine", "--arch", "cnn", "--json").stdout)
    assert (model["name"], model["spec"]["arch"]) == ("mine", "cnn")
    assert model["id"] in sparring("models", "list").stdout
    assert model["sha256"] in sparring("models", "show", model["id"]).stdout
    data = json.loads(sparring("datasets", "push", files[1], "--json").stdout)
    assert data["id"] in sparring("datasets", "list").stdout
    for family, one in (("models", model), ("datasets", data)):
        assert [each["id"] for each in json.loads(sparring(family, "list", "--json").stdout)] == [one["id"]]
        assert sparring(family, "rm", one["sha256"]).returncode == 4
        assert sparring(family, "rm", one["id"]).returncode == 0
        assert sparring(family, "show", one["id"]).returncode == 2


def test_keys_by_hand(sparring, served):
    made = sparring("keys", "create", "ci", "--days", "7")
    secret, id = made.stdout.strip(), made.stderr.split()[0]
    assert made.stdout == f"{secret}\n"
    listed = sparring("keys", "list").stdout
    assert "tests" in listed
    assert secret not in listed
    (ours,) = [key for key in keys.list_keys(served.engine, "default") if key.name == "ci"]
    assert (ours.id, round((ours.expires - ours.created) / timedelta(days=1))) == (id, 7)
    with Client(served.url, secret) as client:
        assert list(client.models.list()) == []
        assert sparring("keys", "revoke", id).returncode == 0
        with pytest.raises(ApiError, match="revoked"):
            list(client.models.list())
    assert json.loads(sparring("keys", "create", "for ever", "--json").stdout)["expires"] is None
    assert sparring("keys", "revoke", id).returncode == 2


def test_webhooks_by_hand(sparring, served):
    (served.settings.grants).write_text(json.dumps({"default": [{"origin": "http://127.0.0.1:9999"}]}))
    made = sparring("webhooks", "create", "http://127.0.0.1:9999/hook")
    assert made.returncode == 0
    assert made.stdout.startswith("whsec_")
    ident = made.stderr.partition(":")[0]
    assert made.stderr == f"{ident}: keep the secret, it is not shown again\n"
    listed = sparring("webhooks", "list").stdout
    assert ident in listed
    assert "http://127.0.0.1:9999/hook" in listed
    assert [one["id"] for one in json.loads(sparring("webhooks", "list", "--json").stdout)] == [ident]
    assert "secret" in json.loads(sparring("webhooks", "create", "http://127.0.0.1:9999/", "--json").stdout)
    assert sparring("webhooks", "rm", ident).returncode == 0
    assert ident not in sparring("webhooks", "list").stdout
    refused = sparring("webhooks", "create", "https://127.0.0.1/")
    assert (refused.returncode, "no public address" in refused.stderr) == (2, True)
    assert sparring("webhooks", "rm", "key_1").returncode == 4


def test_a_name_that_is_no_id_starts_nothing(sparring):
    for arguments in (
        ("jobs", "show", "../../etc"),
        ("report", "show", "job_1"),
        ("models", "show", "dat_" + "a" * 20),
        ("keys", "revoke", "x"),
    ):
        done = sparring(*arguments, url="http://127.0.0.1:1")
        assert done.returncode == 4
        assert "is no id of this kind" in done.stderr
    assert "secret_part" not in sparring("keys", "revoke", "svc_secret_part").stderr


def test_weights_without_an_architecture_are_told_before_a_job_fails(sparring, files, tmp_path, served):
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes((2).to_bytes(8, "little") + b"{}")
    done = sparring("models", "push", weights)
    assert (done.returncode, "warning: weights.safetensors holds weights" in done.stderr) == (0, True)
    assert sparring("models", "push", weights, "--arch", "cnn").stderr == ""
    done = sparring("evaluate", weights, files[1], "--eps", "1")
    assert done.returncode == 4
    assert "--arch" in done.stderr
    assert not jobs.list_jobs(served.engine, "default", limit=1, cursor=None).items


def test_retrying_what_cannot_help_says_so(sparring, files, worker):
    worker(reason=Reason(code="bad_model", message="The model has no output.", hint="Export it again."))
    sparring("evaluate", *files, "--eps", "8/255")
    (job,) = json.loads(sparring("jobs", "list", "--json").stdout)
    done = sparring("jobs", "retry", job["id"])
    assert (done.returncode, "likely to do so again" in done.stderr) == (0, True)


def test_without_a_key_or_with_a_wrong_one_the_variable_is_named(sparring, monkeypatch, tmp_path):
    for key, code, said in (("", 2, str(tmp_path / "no-stack" / "stack.json")), ("svc_…", 4, "Give it whole"), ("é", 4, "SPARRING_KEY")):
        monkeypatch.setenv("SPARRING_KEY", key)
        done = sparring("models", "list")
        assert done.returncode == code
        assert "SPARRING_KEY" in done.stderr
        assert said in done.stderr
        assert "Bearer" not in done.stderr


def test_help_is_a_letter_too(sparring):
    assert "cancel" in sparring("jobs", "-h").stdout


def test_tables_keep_to_the_columns_there_are(capsys, monkeypatch):
    for columns in (80, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        show.report(factory.report())
        said = capsys.readouterr().out
        tables = [line for line in said.splitlines() if "  " in line]
        assert all(len(line) <= columns and line == line.rstrip() for line in tables)
        assert any(line.startswith("worst case  64.0 % [61.0, 66.9]  640 of 1,000") for line in tables)
        assert ("queries" in said) == (columns == 120)


def test_a_warning_is_said_once_and_a_suite_by_its_version(capsys):
    finding = Finding(code="chance_accuracy", message="No better than guessing.")
    report = factory.report()
    suspect = tuple(each.model_copy(update={"trust": Trust(level="suspect", evidence=(finding,))}) for each in report.threats)
    run = report.provenance.model_copy(update={"suite": "quick@7"})
    report = report.model_copy(update={"warnings": (finding,), "threats": suspect, "provenance": run})
    show.report(report)
    said = capsys.readouterr().out
    assert said.count("No better than guessing.") == 1
    assert "suite quick@7" in said
    assert "masking" not in said


def test_an_interrupt_before_anything_runs_ends_quietly(monkeypatch, capsys):
    class Interrupted:
        def find_spec(self, name, *rest):
            if name == "sparring.commands.root":
                raise KeyboardInterrupt

    monkeypatch.setattr("sys.meta_path", [Interrupted(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "sparring.commands.root", raising=False)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130
    assert capsys.readouterr() == ("", "")


def test_hostile_text_of_a_service_does_not_reach_the_terminal(sparring, files, worker):
    worker(reason=Reason(code="bad_model", message="\x1b[2J[red]x[/red]\u202e", hint="[bold]"))
    done = sparring("evaluate", *files, "--eps", "8/255")
    assert "\x1b" not in done.stderr
    assert "\u202e" not in done.stderr
    assert "[red]x[/red]" in done.stderr
