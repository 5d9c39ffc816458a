import csv
import io

from sparring.contract.report import ROW_COLUMNS
from sparring.reports.rows import Row, write_csv


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
