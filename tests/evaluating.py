"""Commands run inside the test's process, and what `dltrain eval` prints of a run."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner, Result

from dltrain.cli import app


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def measured(*arguments: Any) -> dict[str, Any]:
    result = invoke("eval", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found
