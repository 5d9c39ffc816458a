import re

from sparring.reports.markdown import escape, fenced, markdown
from tests.reports import factory


def test_markdown_holds_the_facts():
    said = markdown(factory.report(warnings=(factory.warning(),)))
    assert said.startswith("# digits cnn\\.pt2 on digits\\.npz: robustness report")
    assert "| linf 8/255 | **49.0 %** | [45.9, 52.1] | 490 of 1,000 | 91.2 % [89.3, 92.8] | unchecked |" in said
    assert "no masking checks were run beyond the preflight" in said
    assert "no better than chance" in said
    assert "sparring evaluate mdl_" in said
    assert said.endswith("}\n```\n")


def test_every_table_row_has_the_cells_of_its_head():
    said = markdown(factory.report(name="a|b", data="c|d"))
    for table in re.findall(r"(?:^\|.*\n?)+", said, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.strip().splitlines()}) == 1


def test_hostile_text_is_inert():
    assert escape("<b>*x*</b>|`y`\n[z](http://e)") == "&lt;b&gt;\\*x\\*&lt;/b&gt;\\|\\`y\\` \\[z\\]\\(http\\://e\\)"
    hostile = "<script>\n# head\n| a | b |\u202e"
    said = markdown(factory.report(name=hostile, data=hostile, warnings=(factory.warning(message=hostile, evidence={"x": hostile}),)))
    outside = re.sub(r"```.*?```", "", said, flags=re.DOTALL)
    assert "<script>" not in outside
    assert "\u202e" not in said
    assert "\n# head" not in said


def test_fence_outlasts_the_backticks_inside():
    assert fenced("a ```` b") == "`````\na ```` b\n`````"
