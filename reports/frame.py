"""How a page that is written by hand begins: it runs no script, fetches nothing and has the style of the reports."""

from pathlib import Path

HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
"""
"""How the page of a report begins: what begins so runs no script, whatever follows."""


def begun(title: str) -> str:
    """Up to the end of the head. The title is escaped already."""
    css = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    return f"""{HEAD}\
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>
{css}
</style>
</head>
"""
