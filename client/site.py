"""Reports as a folder for any static host. All in it is written anew from what was read and checked, save the pages themselves."""

import hashlib
import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from sparring import local
from sparring.errors import UsageProblem
from sparring.paths import check_folder, kind_of
from sparring.reports import compare_html, frame, site
from sparring.reports.bundle import PAGE
from sparring.reports.compare import Told
from sparring.reports.pictures import Unreadable
from sparring.reports.rows import write_csv
from sparring.sdk import Client
from sparring.show import say
from sparring.told import check, is_job, of_job, of_zip, page_of_zip


class Entry(NamedTuple):
    """A report to be published."""

    name: str
    """As it was given."""
    told: Told
    page: bytes | None
    """Its own page."""

    @property
    def folder(self) -> str:
        """Of its files: the same for the same report."""
        return f"reports/{hashlib.sha256(self._json).hexdigest()[:16]}"

    @property
    def _json(self) -> bytes:
        return self.told.report.model_dump_json(indent=2).encode()

    def files(self) -> Iterator[tuple[str, str, bytes]]:
        """What each file is called in the index, its name, its content."""
        if self.page is not None:
            yield "report", PAGE, self.page
        yield "JSON", "report.json", self._json
        rows = io.StringIO(newline="")
        write_csv(self.told.lines, rows)
        yield "rows", "rows.csv", rows.getvalue().encode()


def write(folder: Path, names: Sequence[str]) -> int:
    """Write the folder, whole or not at all; says how many reports there are in it.

    Args:
        folder: where; it does not exist yet, or is empty.
        names: each a report.zip or the id of a job; all evaluations of the service if there are none.

    Raises:
        UsageProblem: the folder is in use or cannot be written, or a name is no report.
    """
    _check_empty(folder)
    check(names)
    with ExitStack() as held:
        entries = _unique(_entries(names, held))
        if not entries:
            raise UsageProblem("There is no evaluation that has ended with a report", "Run `sparring evaluate` first, or name a report.zip")
        try:
            _publish(folder, entries)
        except OSError as error:
            raise UsageProblem(f"{folder} cannot be written: {error.strerror}") from error
    return len(entries)


def _check_empty(folder: Path) -> None:
    found = kind_of(folder)
    if found != "nothing" and (found != "folder" or any(folder.iterdir())):
        raise UsageProblem(f"{folder} is no empty folder, and is left as it is", "Name a new one, or remove it first")
    check_folder(folder)


def _entries(names: Sequence[str], held: ExitStack) -> Iterator[Entry]:
    if not names or any(map(is_job, names)):
        client = held.enter_context(local.service())
        names = names or [job.id for job in client.jobs.list(state="succeeded") if job.job.kind == "evaluate"]
        yield from (_of_job(client, name, held) for name in names if is_job(name))
    for name in names:
        if not is_job(name):
            yield Entry(name, of_zip(Path(name), held), _checked(name, page_of_zip(Path(name))))


def _of_job(client: Client, job: str, held: ExitStack) -> Entry:
    told = of_job(client, job, held)
    with tempfile.TemporaryDirectory(prefix="sparring-page-") as folder:
        page = client.jobs.artifact(job, PAGE, Path(folder) / PAGE).read_bytes()
    return Entry(job, told, _checked(job, page))


def _checked(name: str, page: bytes | None) -> bytes | None:
    """A page is published only if no script can run in it, whoever has written it."""
    if page is None:
        say(f"{name} holds no page, and is listed with its JSON and its rows alone; write it again with this version")
    elif not page.startswith(frame.HEAD.encode()):
        raise UsageProblem(
            f"The page in {name} does not begin as a report's does", "It was changed, or made by another version: write it again"
        )
    return page


def _unique(entries: Iterable[Entry]) -> list[Entry]:
    return list({entry.folder: entry for entry in entries}.values())


def _publish(folder: Path, entries: Sequence[Entry]) -> None:
    """Made beside it, and put in its place at the end."""
    target = folder.resolve()
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as made:
        root = Path(made) / "site"
        changes = site.since([entry.told for entry in entries])
        listed = [_placed(root, entries, at, since) for at, since in enumerate(changes)]
        (root / "index.html").write_text(site.index(listed), encoding="utf-8")
        root.replace(target)


def _placed(root: Path, entries: Sequence[Entry], at: int, since: site.Since | None) -> site.Listed:
    entry = entries[at]
    place = root / entry.folder
    place.mkdir(parents=True)
    links = []
    for said, name, content in entry.files():
        (place / name).write_bytes(content)
        links.append((said, f"{entry.folder}/{name}"))
    if since:
        (place / "compared.html").write_text(_compared(entries[since.earlier], entry, since), encoding="utf-8")
        links.append(("compared", f"{entry.folder}/compared.html"))
    return site.Listed(entry.told.report, tuple(links), since)


def _compared(before: Entry, after: Entry, since: site.Since) -> str:
    try:
        return compare_html.page(before.told, after.told, since.found)
    except Unreadable as error:
        raise UsageProblem(f"{before.name} or {after.name} is damaged: {error}", "Write it again") from error
