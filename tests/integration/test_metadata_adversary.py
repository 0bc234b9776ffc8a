"""Attacks on the signed metadata, against the whole updater.

The attacker is the broker, or holds stolen keys. Whatever it does, see `tests.fakes.adversary`.
The same attacks on the metadata alone are in tests/agent/bundle/test_trustattacks.py.
"""

from __future__ import annotations

import json

import pytest
from tuf.api.metadata import Metadata

from agent.bundle.trustmessage import encode, parse
from tests.fakes.adversary import EVIL, THIEVES
from tests.fakes.tufrepository import DAY, TufRepository

# Each makes the attacker's message of a copy of the repository that knows the evil bundle.


def by(*roles, count=None):
    """The set with targets signed by keys of other roles, or by fewer."""

    def attack(thief, _stand):
        signers = [signer for role in roles for signer in thief.keys[role]][:count]
        return thief.publish(signers={"targets": signers})

    return attack


def forged(thief, _stand):
    return thief.publish(signers={"targets": THIEVES})


def one_release_key_twice(thief, _stand):
    files = parse(thief.publish(signers={"targets": thief.keys["targets"][:1]}, hashes=False))
    name = f"{thief.targets.version}.targets.json"
    metadata = json.loads(files[name])
    metadata["signatures"] *= 2
    return encode({**files, name: json.dumps(metadata).encode()})


def a_root_by_one_of_three(thief, _stand):
    thief.set_keys("targets", THIEVES)
    thief.add_root(thief.keys["root"][:1])
    return thief.publish()


def altered_on_the_way(thief, stand):
    """Release 3 is made the evil one; nothing lists hashes."""
    evil, honest = (targets(one)[-1].encode() for one in (thief, stand.controller.repository))
    files = parse(stand.controller.repository.publish(hashes=False))
    name = f"{stand.controller.repository.targets.version}.targets.json"
    assert honest in files[name]
    return encode({**files, name: files[name].replace(honest, evil)})


def replayed(_thief, stand):
    return stand.replayed


def held_back_until_it_is_over(thief, stand):
    message = thief.publish()
    stand.pass_time(8 * DAY)
    return message


def rolled_back(thief, _stand):
    """The online keys sign once more what the release keys have said before."""
    thief.targets = Metadata.from_bytes(thief.files["1.targets.json"]).signed
    return thief.publish(same=["targets"])


def mixed(role):
    def attack(thief, _stand):
        old = thief.files[f"{getattr(thief, role).version}.{role}.json"]
        thief.publish()
        return thief.message(**{f"{getattr(thief, role).version}.{role}.json": old})

    return attack


def left_out(thief, _stand):
    thief.publish()
    return thief.message(**{f"{thief.targets.version}.targets.json": None})


def a_file_truncated(thief, _stand):
    files = parse(thief.publish())
    name = f"{thief.targets.version}.targets.json"
    return encode({**files, name: files[name][:-1]})


def truncated(thief, _stand):
    message = thief.publish()
    return message[: len(message) // 2]


def targets(repository):
    return sorted(repository.targets.targets)


METADATA = {
    "forged": forged,
    "unsigned": by(),
    "one of two release keys": by("targets", count=1),
    "one release key twice": one_release_key_twice,
    "one release key and all that are online": by("director", "snapshot", "timestamp"),
    "operators": by("operators"),
    "a root by one of three": a_root_by_one_of_three,
    "altered on the way": altered_on_the_way,
    "of another fleet": lambda _thief, _stand: TufRepository(name="other").publish(),
    "replayed": replayed,
    "held back until it is over": held_back_until_it_is_over,
    "rolled back": rolled_back,
    "mixed targets": mixed("targets"),
    "mixed snapshot": mixed("snapshot"),
    "a file left out": left_out,
    "a file truncated": a_file_truncated,
    "truncated": truncated,
    "garbage": lambda _thief, _stand: b"\x00\xff" * 5000,
    "deeply nested": lambda _thief, _stand: b'{"files":' * 50_000,
}


@pytest.mark.parametrize("attack", METADATA)
def test_metadata_other_than_the_release_keys_newest_word_brings_nothing_in(stand, attack):
    """The attacker has the director's key too, so what got in would be begun at once."""
    kept = dict(stand.site.store.trust.load())
    thief, evil = stand.thief(EVIL)
    stand.site.inbox.trust("", METADATA[attack](thief, stand))
    stand.site.wait_refused("trust message")
    assert dict(stand.site.store.trust.load()) == kept
    stand.attacked(stand.assigned(evil))
    stand.unharmed()


def test_two_words_of_the_same_version_change_nothing(stand):
    """Whoever holds all keys shows other devices something else; this one keeps what it saw."""
    kept = dict(stand.site.store.trust.load())
    thief, evil = stand.thief(EVIL)
    for signed in (thief.targets, thief.snapshot, thief.timestamp):
        signed.version -= 1
    stand.site.inbox.trust("", thief.publish())
    stand.attacked(stand.assigned(evil))
    assert dict(stand.site.store.trust.load()) == kept
    stand.unharmed()
