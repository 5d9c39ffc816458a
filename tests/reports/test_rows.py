import csv
import io

import pytest

from sparring.contract.report import ROW_COLUMNS
from sparring.reports.rows import Row, outcomes, read_csv, write_csv
from tests.reports import factory


def written(*rows):
    file = io.StringIO(newline="")
    write_csv(rows, file)
    return file.getvalue()


def test_columns_are_those_of_the_contract():
    assert Row._fields == ROW_COLUMNS
    assert written() == ",".join(ROW_COLUMNS) + "\n"


def test_numbers_come_back_exactly():
    row = Row(3, 1, 1, "linf", 8 / 255, 1, "pgd", 7, 0.1 + 0.2, 42, 1, None, 0)
    line = next(csv.DictReader(io.StringIO(written(row))))
    assert float(line["eps"]) == 8 / 255
    assert float(line["distance"]) == 0.1 + 0.2
    assert line["broken_by"] == "pgd"
    assert written(row._replace(distance=None)).endswith(",7,,42,1,,0\n")


def test_text_that_a_spreadsheet_would_run_is_quoted_and_numbers_are_not():
    row = Row(0, 1, 1, "l2", -0.5, 1, "=HYPERLINK(1)", -1, None, 0, 0, None, None)
    assert written(row).splitlines()[1] == "0,1,1,l2,-0.5,1,'=HYPERLINK(1),-1,,0,0,,"
    for start in "+-@\t\r":
        assert f"'{start}x" in written(row._replace(broken_by=f"{start}x"))


ROW = Row(0, 1, 1, "linf", 0.1, 1, "pgd", 7, 0.05, 42, 1, None, 0)


def read(text):
    return read_csv(io.StringIO(text, newline=""))


def test_rows_come_back_as_they_were_written():
    rows = (ROW, ROW._replace(row=1, broken=0, broken_by="", distance=None))
    assert read(written(*rows)) == rows


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1"),
        ("row,label\n", "line 1"),
        (written(ROW).replace("42", "many"), "line 2: .*many"),
        (written(ROW) + "1,2\n", "line 3"),
        (written(ROW, ROW).replace("0.05", "x"), "line 2"),
    ],
)
def test_what_is_no_rows_csv_is_refused_with_its_line(text, said):
    with pytest.raises(ValueError, match=said):
        read(text)


def of(report):
    """Rows that fit a report: those that stand come first."""
    return [
        ROW._replace(
            row=at,
            norm=result.threat.norm,
            eps=result.threat.radius,
            clean_prediction=1 if at < report.clean.count else 2,
            broken=int(at >= result.worst.count),
        )
        for result in report.threats
        for at in range(report.clean.total)
    ]


def test_outcomes_are_told_threat_by_threat():
    report = factory.report()
    found = outcomes(of(report), report)
    assert [sum(each.stood) for each in found] == [result.worst.count for result in report.threats]
    assert all(sum(each.right) == report.clean.count for each in found)
    assert found[0].rows == tuple(range(factory.ROWS))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[:-1], "2999 lines"),
        (lambda rows: [rows[0]._replace(broken=1), *rows[1:]], "unbroken"),
        (lambda rows: [rows[0]._replace(clean_prediction=3), *rows[1:]], "right"),
        (lambda rows: [rows[0]._replace(eps=0.5), *rows[1:]], "another threat"),
    ],
)
def test_rows_that_contradict_their_report_are_refused(change, said):
    report = factory.report()
    with pytest.raises(ValueError, match=said):
        outcomes(change(of(report)), report)
