import json
import re

import pytest
from typer.testing import CliRunner

from agent.bundle.manifest import Compat, Provenance
from agent.cli import app
from agent.errors import AgentError, BundleError
from tests.vectors.bundles import make_bundle, tiny_model

FILES = {"model.onnx": tiny_model(), "golden/a.jpg": b"picture"}


@pytest.fixture
def bundle(tmp_path):
    packed = make_bundle(
        tmp_path,
        FILES,
        version="1.2.0",
        compat=Compat(hw_class=("orin", "nano")),
        provenance=Provenance(trainer="[bold]somebody[/bold]"),
    )
    return tmp_path, packed


def vigia(*arguments):
    return CliRunner().invoke(app, ["bundle", *map(str, arguments)])


@pytest.mark.parametrize("part", ["", "manifest.json"])
def test_inspect_says_what_a_bundle_is(bundle, part):
    done = vigia("inspect", bundle[0] / part)
    assert done.exit_code == 0
    words = " ".join(done.stdout.split())
    for expected in (
        "conveyor 1.2.0",
        bundle[1].digest,
        "2023-11-14 to 2096-10-02",
        "hw_class orin nano",
        "golden/a.jpg 7 golden",
        "[bold]somebody[/bold]",
    ):
        assert expected in words


def test_inspect_gives_programs_the_manifest(bundle):
    found = json.loads(vigia("inspect", bundle[0], "--json").stdout)
    assert found == {"digest": bundle[1].digest, "manifest": json.loads(bundle[1].manifest)}


def test_inspect_needs_no_payload(bundle):
    (bundle[0] / "payload").unlink()
    assert vigia("inspect", bundle[0]).exit_code == 0


def test_verify_says_that_a_bundle_is_whole(bundle):
    done = vigia("verify", bundle[0])
    assert done.exit_code == 0
    assert bundle[1].digest in done.stdout
    found = json.loads(vigia("verify", bundle[0], "--json").stdout)
    assert found["digest"] == bundle[1].digest
    assert found["target"] == "models/conveyor/1.2.0/manifest.json"
    assert found["bytes"] == (bundle[0] / "payload").stat().st_size


def test_the_data_key_is_not_needed_nor_shown(bundle):
    for command in ("inspect", "verify"):
        assert bundle[1].data_key.hex() not in vigia(command, bundle[0], "--json").stdout


def damage(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("payload", damage, "block .* is damaged"),
        ("payload", lambda path: path.unlink(), "cannot read the payload"),
        ("index", damage, "its SHA-256 is not the manifest's"),
        ("index", lambda path: path.unlink(), "cannot read .*index"),
        ("index", lambda path: path.write_bytes(bytes(10_000)), "more than the"),
        ("manifest.json", lambda path: path.write_bytes(b"{}"), "Field required"),
        ("manifest.json", lambda path: path.unlink(), "cannot read .*manifest.json"),
        ("manifest.json", lambda path: path.write_bytes(bytes(2**20)), "more than the"),
    ],
)
def test_verify_says_what_is_wrong(bundle, file, change, message):
    change(bundle[0] / file)
    done = vigia("verify", bundle[0])
    assert isinstance(done.exception, AgentError)
    assert re.search(message, str(done.exception))


def test_a_manifest_that_is_a_link_is_not_followed(bundle, tmp_path):
    (tmp_path / "link").symlink_to(bundle[0] / "manifest.json")
    assert isinstance(vigia("inspect", tmp_path / "link").exception, BundleError)
