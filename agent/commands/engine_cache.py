"""`vigia engine list`, `show` and `prune`: what lies in the plan cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.commands import JsonOption

if TYPE_CHECKING:
    from engines.plan import Entry, PlanCache

CacheOption = Annotated[
    Path | None, typer.Option(help="Where built engines are kept; default: the user's cache.")
]
ConfigFileOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="Take the place from this file.")
]

SHOWN_HEX = 12
"""Digits of a key that are shown; any beginning that only one plan has will do."""


def list_plans(
    cache_dir: CacheOption = None,
    config: ConfigFileOption = None,
    json_output: JsonOption = False,
) -> None:
    """List the built engines, most recently used first.

    Example: [bold]vigia engine list -c /etc/vigia/agent.yaml[/bold]
    """
    import json
    import time

    from rich.table import Table
    from rich.text import Text

    from agent.commands.output import output, plain

    entries = _cache(cache_dir, config).entries()
    if json_output:
        typer.echo(json.dumps([_row(entry) for entry in entries]))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("plan", "model", "backend", "precision", "x fp32", "MB", "built", ""):
        table.add_column(heading, justify="right" if heading in ("x fp32", "MB") else "left")
    for entry in entries:
        row = _row(entry)
        built = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.created_s))
        speedup = row["speedup"]
        table.add_row(
            entry.hex[:SHOWN_HEX],
            plain(str(row["model"] or "-")),
            plain(str(row["backend"] or "-")),
            plain(str(row["precision"] or "-")),
            f"{speedup:.2f}" if isinstance(speedup, float) else "-",
            f"{entry.bytes / 1e6:.1f}",
            built if entry.created_s else "-",
            Text(entry.problem, "yellow"),
        )
    console = output()
    console.print(table if entries else "no engine has been built")


def show(
    plan: Annotated[str, typer.Argument(help="Key of a plan, or its beginning.")],
    cache_dir: CacheOption = None,
    config: ConfigFileOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show how an engine came to be chosen, and everything that it depends on.

    Example: [bold]vigia engine show 3fa4[/bold]
    """
    import json

    from agent.commands.output import output
    from agent.enginereport import table
    from agent.errors import ConfigError

    found = [e for e in _cache(cache_dir, config).entries() if e.hex.startswith(plan.lower())]
    if len(found) != 1:
        raise ConfigError(
            f"{len(found)} plans begin with {plan!r}; `vigia engine list` shows their keys"
        )
    (entry,) = found
    if json_output:
        typer.echo(json.dumps({**_row(entry), "key": entry.key, "sidecar": entry.sidecar}))
        return
    console = output()
    report = entry.sidecar.get("report")
    if isinstance(report, dict):
        console.print(table(report))
    console.print(f"\nplan {entry.hex}, {entry.bytes / 1e6:.1f} MB; it depends on:")
    console.print_json(json.dumps(entry.key))


def prune(
    max_mb: Annotated[
        int | None, typer.Option(help="Keep so many megabytes, most recently used first.", min=0)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all of them.")] = False,
    cache_dir: CacheOption = None,
    config: ConfigFileOption = None,
    json_output: JsonOption = False,
) -> None:
    """Remove built engines; they are built again when they are needed.

    Without an option, what exceeds the configured size goes, and what interruptions left.

    Example: [bold]vigia engine prune --max-mb 500[/bold]
    """
    import json

    from agent.modelsettings import BYTES_PER_MB

    cache = _cache(cache_dir, config)
    limit = 0 if everything else (max_mb if max_mb is not None else _max_mb(config))
    gone = cache.prune(limit * BYTES_PER_MB)
    if json_output:
        typer.echo(json.dumps({"removed": gone}))
        return
    typer.echo(f"removed {len(gone)} engines; {len(cache.entries())} are kept")


def _cache(cache_dir: Path | None, config: Path | None) -> PlanCache:
    from agent.configfile import load
    from agent.plans import default_cache_dir, open_cache

    configured = None if config is None else load(config).pipeline.cache_dir
    return open_cache(cache_dir or configured or default_cache_dir(), _max_mb(config))


def _max_mb(config: Path | None) -> int:
    from agent.configfile import load
    from agent.plans import DEFAULT_CACHE_MB

    return DEFAULT_CACHE_MB if config is None else load(config).pipeline.cache_max_mb


def _row(entry: Entry) -> dict[str, Any]:
    report = entry.sidecar.get("report")
    chosen = report.get("chosen", {}) if isinstance(report, dict) else {}
    return {
        "plan": entry.hex,
        "model": entry.sidecar.get("model"),
        "backend": entry.sidecar.get("backend"),
        "precision": entry.sidecar.get("precision"),
        "route": entry.sidecar.get("route"),
        "speedup": chosen.get("speedup") if isinstance(chosen, dict) else None,
        "bytes": entry.bytes,
        "created_s": entry.created_s,
        "problem": entry.problem,
    }
