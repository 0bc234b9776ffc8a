"""`vigia engine`."""

from __future__ import annotations

import typer

from agent.commands import (
    engine_bench,
    engine_build,
    engine_cache,
    engine_doctor,
    engine_profile,
    engine_verify,
)

app = typer.Typer(no_args_is_help=True, help="Build, prove and measure engines.")

app.command("build")(engine_build.build)
app.command("verify")(engine_verify.verify)
app.command("bench")(engine_bench.bench)
app.command("profile")(engine_profile.profile)
app.command("doctor")(engine_doctor.doctor)
app.command("list")(engine_cache.list_plans)
app.command("show")(engine_cache.show)
app.command("prune")(engine_cache.prune)
