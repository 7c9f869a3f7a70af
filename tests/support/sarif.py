"""The part of the SARIF 2.1.0 schema (OASIS, errata 01) that reports of ours use: its names, and what each may be.

The standard's own objects take no other properties than those that it names, and neither do these.
"""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
URI: Schema = {"type": "string", "format": "uri-reference", "pattern": r"^[^\s\\]*$"}
LEVEL: Schema = {"enum": ["none", "note", "warning", "error"]}
PLACE: Schema = {"type": "integer", "minimum": 1}


def an_object(required: list[str], **properties: Schema) -> Schema:
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


def a_list(of: Schema, unique: bool = False) -> Schema:
    return {"type": "array", "items": of, "uniqueItems": unique}


BAG: Schema = {"type": "object", "properties": {"tags": a_list(TEXT, unique=True)}, "additionalProperties": True}
MESSAGE = an_object(["text"], text=TEXT, markdown=TEXT)
ARTIFACT = an_object(["uri"], uri=URI, uriBaseId=TEXT)
REGION = an_object([], startLine=PLACE, startColumn=PLACE, endLine=PLACE, endColumn=PLACE)
LOCATION = an_object([], physicalLocation=an_object(["artifactLocation"], artifactLocation=ARTIFACT, region=REGION))
RULE = an_object(
    ["id"],
    id=TEXT,
    name=TEXT,
    shortDescription=MESSAGE,
    help=MESSAGE,
    helpUri={**TEXT, "format": "uri"},
    defaultConfiguration=an_object([], level=LEVEL),
    properties=BAG,
)
RESULT = an_object(
    ["message"],
    ruleId=TEXT,
    ruleIndex={"type": "integer", "minimum": 0},
    level=LEVEL,
    message=MESSAGE,
    locations=a_list(LOCATION),
    partialFingerprints={"type": "object", "additionalProperties": TEXT},
    properties=BAG,
)
NOTIFICATION = an_object(["message"], level=LEVEL, message=MESSAGE, locations=a_list(LOCATION))
INVOCATION = an_object(
    ["executionSuccessful"],
    executionSuccessful={"type": "boolean"},
    toolExecutionNotifications=a_list(NOTIFICATION),
)
RUN = an_object(
    ["tool"],
    tool=an_object(["driver"], driver=an_object(["name"], name=TEXT, version=TEXT, rules=a_list(RULE, unique=True))),
    columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
    originalUriBaseIds={"type": "object", "additionalProperties": ARTIFACT},
    invocations=a_list(INVOCATION, unique=True),
    results=a_list(RESULT),
)
LOG = an_object(
    ["version", "runs"], **{"$schema": {**TEXT, "format": "uri"}}, version={"const": "2.1.0"}, runs=a_list(RUN)
)
