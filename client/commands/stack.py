"""`sparring up` and `sparring demo`: a whole service on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sparring.sdk import Client

DataFolder = Annotated[
    Path | None, typer.Option("--data", help="Data folder; unless given SPARRING_DATA, or the user's data home.", show_default=False)
]
OnDevice = Annotated[str, typer.Option(help="auto, cpu, gpu, or one GPU such as cuda:0.")]

DEMO_EPS = ("0.05", "0.1", "0.2")


def up(
    data: DataFolder = None,
    host: Annotated[str, typer.Option(envvar="SPARRING_HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="SPARRING_PORT", min=0, max=65535, help="Port to listen on; 0 for any free one.")] = 8787,
    device: OnDevice = "auto",
) -> None:
    """Run the whole service on this machine until Ctrl-C: API, queue, records and one worker."""
    from sparring import local, show
    from sparring.errors import ServiceAway

    local.check_device(device)
    wanted = "auto" if device == "gpu" else device
    with local.started(local.data_folder(data), host=host, port=port, device=wanted, shown=True) as (stack, process):
        show.tell(f"Sparring is up at {stack.url}, data in {stack.data}")
        show.tell(f"its pages, logged in: {stack.url}/login#{stack.key}")
        show.tell(f"export SPARRING_URL={stack.url} SPARRING_KEY={stack.key}")
        show.tell(f"curl -H 'Authorization: Bearer {stack.key}' {stack.url}/v1/attacks")
        show.tell(f"its queue, for jobs by queue: {stack.redis}")
        try:
            code = process.wait()
        except (KeyboardInterrupt, SystemExit):
            show.say("going down")
            return
    raise ServiceAway(f"The stack ended by itself, with exit code {code}", "Its last lines above say why")


def _digits(folder: Path) -> None:
    import re
    import subprocess

    from sparring.errors import SparringError
    from sparring.local import command

    ended = subprocess.run(command("workers.digits", str(folder)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or [f"it ended with {ended.returncode}, and without a word"])[-1]
        missing = re.fullmatch(r"ModuleNotFoundError: No module named '(\w+)[^']*'", last)
        said = f"it needs {missing[1]}, which is not installed" if missing else last
        raise SparringError(
            f"The demo's model could not be trained: {said}", "Install what it needs: pip install 'sparring[all]' scikit-learn"
        )


def _play(client: "Client", digits: Path, out: Path) -> None:
    from sparring import outputs, show
    from sparring.contract.attacks import FGSM, PGD, Noise
    from sparring.contract.jobs import Evaluate
    from sparring.contract.threat import Threat
    from sparring.progress import cancelled_if_interrupted, follow

    show.say("uploading model and data")
    model = client.models.upload(digits / "digits.pt2")
    data = client.datasets.upload(digits / "digits.npz")
    threats = tuple(Threat(norm="linf", eps=eps) for eps in DEMO_EPS)
    job = client.jobs.submit(Evaluate(model=model.id, data=data.id, threats=threats, attacks=(Noise(), FGSM(), PGD())))
    with cancelled_if_interrupted(client, job.id):
        ended = follow(client, job.id)
    show.report(client.jobs.report(job.id))
    names = ("report.json", "report.html", "report.md", "rows.csv")
    outputs.write(client, ended, outputs.outputs([out / name for name in names]))


def demo(
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder for the report.")] = Path("demo-report"),
    data: Annotated[Path | None, typer.Option("--data", help="Data folder; a temporary one unless given.", show_default=False)] = None,
) -> None:
    """Train a small model on handwritten digits, attack it on a stack of its own, and leave the report in demo-report/."""
    import tempfile

    from sparring import local, show
    from sparring.errors import UsageProblem
    from sparring.sdk import Client

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageProblem(f"-o {out}: the folder cannot be made: {error.strerror}") from error
    with tempfile.TemporaryDirectory(prefix="sparring-demo-", ignore_cleanup_errors=True) as folder:
        digits = Path(folder) / "digits"
        digits.mkdir()
        show.say("training a small model on handwritten digits")
        _digits(digits)
        show.say("starting the stack")
        with local.started(data or Path(folder) / "data") as (stack, _), Client(stack.url, stack.key) as client:
            _play(client, digits, out)
    show.tell(f"\nreport: {out / 'report.html'}")
