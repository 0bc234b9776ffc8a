"""`vigia fleet`: registers the controller's commands; each imports what it needs when it runs."""

from __future__ import annotations

import typer

from fleet.commands import audit, group

app = typer.Typer(
    no_args_is_help=True,
    help="Run a fleet: enrol devices, release models to them, and see what becomes of it.",
    epilog="Begin with: vigia fleet init DIR --broker-host HOST",
)

app.add_typer(group.app, name="group")
app.add_typer(audit.app, name="audit")
