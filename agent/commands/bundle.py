"""`vigia bundle`: looks at sealed bundles; no key is needed, and none is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.commands import JsonOption

if TYPE_CHECKING:
    from agent.bundle.manifest import Manifest

app = typer.Typer(no_args_is_help=True, help="Look at sealed bundles, and check them.")


@app.callback()
def bundles() -> None:
    """Look at sealed bundles, and check them."""


@app.command("inspect")
def inspect(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle, or its manifest.json.")],
    json_output: JsonOption = False,
) -> None:
    """Say what a bundle is: model, files, what it must prove, how it is encrypted.

    Only the manifest is read. Who signed it is not asked: devices do, by the release keys.

    Example: [bold]vigia bundle inspect out/conveyor-1.2.0[/bold]
    """
    import json

    manifest = _manifest(bundle)
    if json_output:
        typer.echo(json.dumps({"digest": manifest.digest, "manifest": _plain(manifest)}))
        return
    _print(manifest)


@app.command("verify")
def verify(
    bundle: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a bundle.")],
    json_output: JsonOption = False,
) -> None:
    """Check a bundle's index and payload against its manifest: damage, not who signed it.

    Exits with 2 if anything is not as the manifest says.

    Example: [bold]vigia bundle verify out/conveyor-1.2.0[/bold]
    """
    import json

    from agent.bundle.index import BlockIndex
    from agent.bundle.open import verify_payload
    from agent.bundle.seal import INDEX, PAYLOAD

    manifest = _manifest(bundle)
    index = BlockIndex.parse(_read(bundle / INDEX, manifest.index.length), manifest)
    verify_payload(manifest, index, bundle / PAYLOAD)
    if json_output:
        found = {
            "digest": manifest.digest,
            "target": manifest.target,
            "blocks": index.blocks,
            "bytes": manifest.ciphertext.length,
        }
        typer.echo(json.dumps(found))
        return
    typer.echo(
        f"{manifest.target}: {index.blocks} blocks, {manifest.ciphertext.length} bytes, all as the "
        f"manifest says\nSHA-256 of the manifest, for the signers to compare: {manifest.digest}"
    )


def _manifest(bundle: Path) -> Manifest:
    from agent.bundle.manifest import MAX_MANIFEST_BYTES, parse_manifest
    from agent.bundle.seal import MANIFEST

    path = bundle / MANIFEST if bundle.is_dir() else bundle
    return parse_manifest(_read(path, MAX_MANIFEST_BYTES))


def _read(path: Path, limit: int) -> bytes:
    from agent.errors import BundleError
    from engines.durable import read_bounded

    try:
        content = read_bounded(path, limit)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}") from error
    if content is None:
        raise BundleError(f"{path} has more than the {limit} bytes that it may have")
    return content


def _plain(manifest: Manifest) -> dict[str, Any]:
    return manifest.model_dump(mode="json", by_alias=True, exclude_none=True)


def _print(manifest: Manifest) -> None:
    import time

    from rich.table import Table

    from agent.commands.output import output, plain

    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")

    def row(name: str, value: str) -> None:
        facts.add_row(name, plain(value))

    def day(seconds: int) -> str:
        return time.strftime("%Y-%m-%d", time.gmtime(seconds))

    row("model", f"{manifest.family} {manifest.version}")
    row("release", f"{manifest.release_counter}, never below {manifest.min_release_counter} again")
    row("digest", manifest.digest)
    row("valid", f"{day(manifest.created)} to {day(manifest.expires)}")
    row("payload", f"{manifest.ciphertext.length} bytes in {manifest.index.blocks} blocks")
    for section, values in _plain(manifest).items():
        if section in ("compat", "build", "gate", "shadow", "canary", "provenance") and values:
            row(section, ", ".join(f"{key} {_shown(value)}" for key, value in values.items()))
    files = Table(box=None, pad_edge=False, header_style="bold")
    files.add_column("file")
    files.add_column("bytes", justify="right")
    files.add_column("role")
    files.add_column("sha256")
    for file in manifest.files:
        files.add_row(file.place, str(file.length), file.role, file.sha256)
    console = output()
    console.print(facts)
    console.print()
    console.print(files)


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
