"""A verdict as JUnit XML: a case for each rule."""

from xml.etree import ElementTree

from sparring.contract.verdict import RuleResult, Verdict
from sparring.reports import gate_text

SUITE = "sparring gate"


def junit(verdict: Verdict) -> str:
    """The verdict as CI systems read test results.

    A violated rule fails, one that could not be decided is an error; what was waived or not applied is skipped, and a warning passes
    with what it says beside it.
    """
    cases = [_case(verdict, rule) for rule in verdict.rules]
    counts = {
        "tests": len(cases),
        "failures": sum(case.find("failure") is not None for case in cases),
        "errors": sum(case.find("error") is not None for case in cases),
        "skipped": sum(case.find("skipped") is not None for case in cases),
    }
    numbers = {name: str(count) for name, count in counts.items()}
    suites = ElementTree.Element("testsuites", numbers)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": SUITE, **numbers, "time": "0"})
    facts = ElementTree.SubElement(suite, "properties")
    for name, value in (("verdict", verdict.word), ("exit_code", str(verdict.exit_code)), ("policy", verdict.policy), ("job", verdict.job)):
        ElementTree.SubElement(facts, "property", {"name": name, "value": gate_text.inert(value)})
    suite.extend(cases)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _case(verdict: Verdict, rule: RuleResult) -> ElementTree.Element:
    case = ElementTree.Element("testcase", {"classname": SUITE, "name": rule.id, "time": "0"})
    message = gate_text.sentence(rule)
    where = f"{gate_text.inert(verdict.policy)}:{rule.line}"
    if verdict.exit_code == 2:
        _add(case, "error", gate_text.inert(f"{rule.why}: {verdict.reason}"), "could_not_evaluate", where)
    elif rule.status == "not_applied" or rule.waiver:
        _add(case, "skipped", message)
    elif rule.blocks:
        _add(case, "failure" if rule.status == "violated" else "error", message, rule.status, where)
    else:
        ElementTree.SubElement(case, "system-out").text = f"{gate_text.status(rule)}: {message}"
    return case


def _add(case: ElementTree.Element, tag: str, message: str, kind: str = "", where: str = "") -> None:
    found = ElementTree.SubElement(case, tag, {"message": message, **({"type": kind} if kind else {})})
    found.text = f"{where}: {message}" if where else None
