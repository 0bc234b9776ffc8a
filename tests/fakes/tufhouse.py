"""A fleet's keys and its repository, with the people who sign."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from securesystemslib.signer import CryptoSigner

from agent.bundle.trust import Trust
from fleet.repository import Repository
from fleet.signing import KeySet, add_signature
from tests.fakes.tufrepository import NOW, MemoryStore, key
from tests.vectors.bundles import make_bundle


@lru_cache
def manifest(version: str = "1", counter: int = 1, family: str = "line") -> bytes:
    """A valid manifest of a very small bundle."""
    with TemporaryDirectory() as folder:
        return make_bundle(
            Path(folder) / "bundle",
            {"model.onnx": b"no model at all"},
            family=family,
            version=version,
            release_counter=counter,
        ).manifest


def key_set(signers: Iterable[CryptoSigner], threshold: int = 1) -> KeySet:
    return KeySet(tuple(signer.public_key for signer in signers), threshold)


class House:
    """2 of 3 root keys, 2 of 2 release keys, one of each online role, two operators.

    Args:
        folder: an empty one.
        repository: made by the caller where a test needs to look inside.
    """

    def __init__(self, folder: Path) -> None:
        self.now = NOW
        self.folder = folder / "tuf"
        self.root = [key(f"root{n}") for n in range(3)]
        self.release = [key(f"release{n}") for n in range(2)]
        self.snapshot, self.timestamp = key("snapshot"), key("timestamp")
        self.director = key("director")
        self.operators = [key(f"operator{n}") for n in range(2)]
        self.repository = self.opened()

    def opened(self) -> Repository:
        """The repository as another process opens it."""
        return Repository(self.folder, lambda: self.now)

    @property
    def online(self) -> list[CryptoSigner]:
        return [self.snapshot, self.timestamp]

    def stage_first(self) -> list[Path]:
        return self.repository.create(
            root=key_set(self.root, 2),
            release=key_set(self.release, 2),
            snapshot_key=self.snapshot.public_key,
            timestamp_key=self.timestamp.public_key,
            director_key=self.director.public_key,
            operator_keys=[signer.public_key for signer in self.operators],
        )

    def found(self) -> House:
        """Create, sign and publish."""
        return self.publish(self.stage_first())

    def sign(self, paths: Iterable[Path]) -> None:
        """Whoever is asked signs."""
        for path in paths:
            role = path.name.removesuffix(".json")
            for signer in self.root if role == "root" else self.release:
                add_signature(path, signer)

    def publish(self, paths: Sequence[Path]) -> House:
        """Sign, complete and publish what was staged."""
        self.sign(paths)
        self.repository.complete()
        self.repository.publish_online(self.online)
        return self

    def release_bundle(self, *args: object) -> bytes:
        data = manifest(*args)
        self.publish([self.repository.stage_target(data)])
        return data

    def device(self, clock: Callable[[], float] | None = None) -> Trust:
        """A device that is enrolled now."""
        return Trust(self.repository.anchor(), MemoryStore(), clock or (lambda: self.now))
