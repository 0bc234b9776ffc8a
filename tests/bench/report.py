"""The table of README.md, made from the committed benchmark file.

python -m tests.bench.report            prints it
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results" / "bench.json"


def markdown(report: dict[str, Any]) -> str:
    """Targets and figures as a Markdown table."""
    lines = ["| what | measured | target | met |", "|---|---|---|---|"]
    for row in report["targets"]:
        met = "yes" if row["met"] else "**no**"
        lines.append(f"| {row['what']} | {row['figure']:g} | {row['target']} | {met} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown(json.loads(RESULTS.read_text())))
