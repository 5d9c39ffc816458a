import os
from pathlib import Path

import pytest

from sparring.contract.endpoints import Budget
from sparring.workers.errors import Refused
from sparring.workers.ledger import Ledger, key

PLENTY = Budget(asked=1000)
A, B, C = (key(0, bytes([at]) * 4) for at in range(3))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


def test_it_knows_after_a_restart_what_it_knew(path: Path) -> None:
    ledger = Ledger(path)
    ledger.spend([A, B], PLENTY)
    ledger.learn([A, B], [[0.1, 1e-300], [2.0, -3.5]])
    ledger.spend([C], PLENTY)
    ledger.close()
    again = Ledger(path)
    assert (again.asked, again.sent) == (3, 2)
    assert (A in again, B in again, C in again) == (True, True, False)
    assert (again.answer(A), again.answer(B)) == ((0.1, 1e-300), (2.0, -3.5)), "to the last bit"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_request_that_is_repeated_is_sent_twice_and_asked_once(path: Path) -> None:
    ledger = Ledger(path)
    for _ in range(3):
        ledger.spend([A], PLENTY)
    assert (ledger.asked, ledger.sent) == (1, 3)
    ledger.learn([A], [[1.0, 2.0]])
    assert (ledger.asked, ledger.sent, Ledger(path).asked, Ledger(path).sent) == (1, 3, 1, 3)


def test_the_same_row_under_another_look_is_another(path: Path) -> None:
    assert key(0, b"row!") != key(1, b"row!")
    assert key(0, b"row!") != key(0, b"row?")


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_line_that_was_cut_off_is_as_if_it_were_not_there(path: Path, cut: int) -> None:
    ledger = Ledger(path)
    ledger.spend([A], PLENTY)
    ledger.learn([A], [[1.0, 2.0]])
    whole = path.stat().st_size
    ledger.spend([B], PLENTY)
    ledger.learn([B], [[3.0, 4.0]])
    with path.open("r+b") as file:
        file.truncate(whole + cut)
    again = Ledger(path)
    assert (again.asked, again.sent, B in again) == (1, 1, False)
    again.spend([C], PLENTY)
    again.learn([C], [[5.0, 6.0]])
    last = Ledger(path)
    assert (last.asked, last.sent, last.answer(A), last.answer(C)) == (2, 2, (1.0, 2.0), (5.0, 6.0))


def test_a_line_that_has_changed_is_asked_again(path: Path) -> None:
    ledger = Ledger(path)
    for name in (A, B):
        ledger.spend([name], PLENTY)
        ledger.learn([name], [[1.0, 2.0]])
    path.write_bytes(path.read_bytes().replace(b"[1.0,2.0]", b"[9.0,2.0]", 1))
    with pytest.raises(OSError, match="changed on disk"):
        ledger.answer(A)
    again = Ledger(path)
    assert (A in again, B in again, again.asked) == (False, True, 2)


def test_neither_budget_is_ever_passed(path: Path) -> None:
    ledger = Ledger(path)
    budget = Budget(asked=2, sent=3)
    ledger.spend([A, B], budget)
    with pytest.raises(Refused, match="asked = 2") as error:
        ledger.spend([C], budget)
    assert (error.value.reason.code, error.value.reason.detail) == ("budget_spent", "asked")
    ledger.spend([A], budget)
    ledger.spend([B], budget)
    with pytest.raises(Refused, match="sent = 3") as error:
        ledger.spend([A], budget)
    assert error.value.reason.detail == "sent"
    assert (ledger.asked, ledger.sent, Ledger(path).asked, Ledger(path).sent) == (2, 3, 2, 3)


def test_a_full_disk_is_told_before_anything_is_sent(path: Path) -> None:
    ledger = Ledger(path)
    full = os.open("/dev/full", os.O_RDWR)
    os.dup2(full, ledger._file)
    os.close(full)
    with pytest.raises(OSError, match="No space left"):
        ledger.spend([A], PLENTY)
    assert (ledger.asked, ledger.sent) == (0, 0)
