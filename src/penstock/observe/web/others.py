"""What other processes tell over their sockets, as far as it makes sense."""

from __future__ import annotations

import json
from collections.abc import Mapping
from time import time
from typing import Any

from ..document import VERSION
from ..telemetry import reader
from .feed import Reading
from .frame import Frames


def read() -> Reading:
    """Every process of this user; what one of them cannot tell is said, and takes nothing from the others."""
    found = reader.read()
    troubles = [f"process {silent.pid} {silent.why}" for silent in found.silent]
    documents = []
    for document in found.documents:
        why = _unfit(document)
        if why is None:
            documents.append(document)
        else:
            troubles.append(f"process {document.get('pid')} {why}")
    return Reading(documents, troubles)


def _unfit(document: Mapping[str, Any]) -> str | None:
    """Why *document* cannot be shown. It may come from another version, or from who means harm: so it is tried."""
    if document.get("version") != VERSION:
        return f"tells version {document.get('version')} of the document, this is {VERSION}"
    try:
        json.dumps(Frames().frame([document], time()), allow_nan=False)
    except Exception as error:
        return f"tells what cannot be shown ({type(error).__name__}): it has another version of Penstock"
    return None
