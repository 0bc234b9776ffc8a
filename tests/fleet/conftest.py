import pytest

from tests.fakes.fleetfolder import (
    PASSPHRASE,
    copy_fleet,
    found_fleet,
    open_fleet,
    remembered_derivations,
)


@pytest.fixture(scope="session")
def fleet_template(tmp_path_factory):
    """A fleet folder that is never changed."""
    with remembered_derivations():
        yield found_fleet(tmp_path_factory.mktemp("fleet") / "fleet")


@pytest.fixture
def fleet_folder(fleet_template, tmp_path, monkeypatch):
    """A fleet folder of the test's own, whose passphrase is in the environment."""
    monkeypatch.setenv("VIGIA_FLEET_PASSPHRASE", PASSPHRASE)
    return copy_fleet(fleet_template, tmp_path / "fleet")


@pytest.fixture
def fleet(fleet_folder):
    """The same, open."""
    with open_fleet(fleet_folder) as fleet:
        yield fleet
