"""What we write of SARIF 2.1.0, as a JSON Schema of its own: nothing it allows is refused by the standard's schema.

Objects are closed, words are those of the standard's lists.
"""


def _object(required: tuple[str, ...] = (), **properties: object) -> dict[str, object]:
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": properties}


def _list(items: object) -> dict[str, object]:
    return {"type": "array", "items": items}


TEXT = {"type": "string"}
BAG = {"type": "object"}
MESSAGE = _object(("text",), text={"type": "string", "minLength": 1})
LEVEL = {"enum": ["none", "note", "warning", "error"]}
PLACE = _object(
    ("artifactLocation", "region"),
    artifactLocation=_object(("uri",), uri={"type": "string", "format": "uri-reference"}),
    region=_object(("startLine",), startLine={"type": "integer", "minimum": 1}),
)
DESCRIPTOR = _object(("id",), id=TEXT, shortDescription=MESSAGE, defaultConfiguration=_object(level=LEVEL))
RESULT = {
    **_object(
        ("ruleId", "ruleIndex", "kind", "level", "message", "locations", "partialFingerprints"),
        ruleId=TEXT,
        ruleIndex={"type": "integer", "minimum": -1},
        kind={"enum": ["notApplicable", "pass", "fail", "review", "open", "informational"]},
        level=LEVEL,
        message=MESSAGE,
        locations={**_list(_object(physicalLocation=PLACE)), "minItems": 1},
        partialFingerprints={"type": "object", "additionalProperties": TEXT},
        suppressions=_list(
            _object(
                ("kind",),
                kind={"enum": ["inSource", "external"]},
                status={"enum": ["accepted", "underReview", "rejected"]},
                justification=TEXT,
            )
        ),
        properties=BAG,
    ),
    "if": {"properties": {"kind": {"const": "fail"}}},
    "else": {"properties": {"level": {"const": "none"}}},
}
INVOCATION = _object(
    ("executionSuccessful",),
    executionSuccessful={"type": "boolean"},
    exitCode={"type": "integer"},
    toolExecutionNotifications=_list(_object(("message",), message=MESSAGE, level=LEVEL)),
)
RUN = _object(
    ("tool", "results"),
    tool=_object(("driver",), driver=_object(("name",), name=TEXT, version=TEXT, rules=_list(DESCRIPTOR))),
    invocations=_list(INVOCATION),
    results=_list(RESULT),
)
SUBSET = _object(
    ("version", "runs"), **{"$schema": {"type": "string", "format": "uri"}, "version": {"enum": ["2.1.0"]}, "runs": _list(RUN)}
)
