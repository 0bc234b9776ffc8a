"""The commands of a roll-out through a real broker with the fleet's own files, TLS and all."""

import itertools
import json
import shutil
import threading
import time

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from agent.bundle.documents import COMMAND, Assignment, Command
from agent.bundle.dsse import unverified, verify
from agent.config import MqttConfig, TlsConfig
from agent.mqttlink import Link
from agent.wire.schema import COMMAND_REPLY
from agent.wire.topics import FleetTopics, Topics
from fleet.bundlefiles import BundleFiles
from fleet.commands.app import app
from fleet.controlling import open_rollout
from fleet.errors import FleetError
from fleet.layout import Layout
from fleet.link import Inbox, Outlet
from fleet.ordering import stop_campaign
from fleet.roles import Permission
from fleet.tables import Bundle, Campaign, StoredReport
from tests.fakes.fleetbroker import fleet_broker
from tests.fakes.fleetfolder import PASSPHRASE, PREFIX, copy_fleet, enroll_new, open_fleet
from tests.fakes.livedevices import LiveDevices
from tests.vectors.bundles import tiny_model

RELEASE_KEYS = ("--key", "release-1", "--key", "release-2", "--yes")


@pytest.fixture(scope="module")
def released(fleet_template, tmp_path_factory):
    """A fleet with a bundle that is packed and signed."""
    folder = copy_fleet(fleet_template, tmp_path_factory.mktemp("released") / "fleet")
    model = folder.parent / "model.onnx"
    model.write_bytes(tiny_model())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIGIA_FLEET_PASSPHRASE", PASSPHRASE)
        vigia("pack", folder, model, "--family", "line", "--version", "1.0")
        vigia("sign", folder, "line", "1.0", *RELEASE_KEYS)
    return folder


@pytest.fixture
def folder(released, tmp_path, monkeypatch):
    """The same with its broker running, each test its own."""
    monkeypatch.setenv("VIGIA_FLEET_PASSPHRASE", PASSPHRASE)
    with fleet_broker(released, tmp_path / "fleet") as place:
        yield place


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_model(1))
    return path


def vigia(*words, code=0):
    """Run a command of `vigia fleet`; gives what it printed on standard output."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if code == 0 and result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


def told(*words, code=0):
    return json.loads(vigia(*words, "--json", code=code).splitlines()[-1])


def enrolled(folder, tmp_path, *names):
    """Devices that are enrolled, with the answers that they got."""
    with open_fleet(folder) as fleet:
        return [enroll_new(fleet, tmp_path / "devices", name, ("hall",)) for name in names]


def retained(folder):
    """Everything that the broker keeps for the controller to read."""
    inbox = Inbox(PREFIX)
    with open_fleet(folder) as fleet, Outlet(fleet.mqtt) as outlet:
        outlet.hear((f"{PREFIX}/#",), inbox)
        found = {}
        while messages := inbox.take(0.5):
            found |= dict(messages)
    return {topic: payload for topic, payload in found.items() if payload}


def actions(folder):
    with open_fleet(folder) as fleet:
        fleet.audit.verify(*fleet.audit_keys())
        return [entry.action for entry in fleet.audit.entries()]


class TestPush:
    def test_a_model_gets_to_every_device_in_one_command(self, folder, tmp_path, model):
        devices = enrolled(folder, tmp_path, "line-1", "line-2")
        with LiveDevices([(*device, "COMMITTED") for device in devices]):
            result = told(
                *("push", folder, model, "--family", "line", "--version", "2.0"),
                *RELEASE_KEYS,
                *("--group", "hall", "--stages", "50,100", "--deadline", "60"),
            )
        assert result["status"] == "SUCCEEDED"
        assert result["devices"] == {"line-1": "COMMITTED", "line-2": "COMMITTED"}
        with open_fleet(folder) as fleet, fleet.database.reading() as session:
            assert session.scalars(select(StoredReport.outcome)).all() == ["COMMITTED"] * 2
            assert session.scalars(select(Campaign.stage)).one() == 2
        expected = ["bundle.pack", "bundle.publish", "campaign.begin", "campaign.end"]
        assert [a for a in actions(folder) if a in expected][1:] == expected
        shown = told("status", folder)
        assert [row["committed"] for row in shown["devices"]] == ["line 2.0"] * 2
        assert [row["released"] for row in shown["bundles"]] == [True, True]
        assert "SUCCEEDED" in vigia("status", folder)

    def test_one_that_devices_reject_stops_and_exits_1(self, folder, tmp_path):
        devices = enrolled(folder, tmp_path, "line-1", "line-2")
        with LiveDevices([(*device, "REJECTED") for device in devices]):
            result = told(
                *("push", folder, "--family", "line", "--version", "1.0"),
                *("--device", "line-1", "--device", "line-2", "--stages", "50,100"),
                code=1,
            )
        assert result["status"] == "STOPPED"
        assert sorted(result["devices"].values()) == ["LEFT", "REJECTED"]
        assert "1 of 1 finished devices failed" in result["reason"]

    def test_without_enough_keys_nothing_is_published(self, folder, tmp_path, model):
        enrolled(folder, tmp_path, "line-1")
        with pytest.raises(FleetError, match="needs 1 more of the release keys"):
            vigia(
                *("push", folder, model, "--family", "line", "--version", "2.0"),
                *("--device", "line-1", "--key", "release-1", "--yes"),
            )
        assert FleetTopics(PREFIX).trust not in retained(folder)


class TestSingleSteps:
    def test_assign_and_watch(self, folder, tmp_path):
        devices = enrolled(folder, tmp_path, "line-1")
        vigia("publish", folder, "line", "1.0")
        begun = told("assign", folder, "line", "1.0", "--device", "line-1", "--campaign", "june")
        assert begun["devices"] == {"line-1": "WAITING"}
        # Reports before anybody watches: they are retained.
        with LiveDevices([(*devices[0], "COMMITTED")]) as live:
            with open_fleet(folder) as fleet, Outlet(fleet.mqtt) as outlet:
                inbox = Inbox(PREFIX)
                outlet.hear((Topics(PREFIX, "line-1").update_report("main"),), inbox)
                assert inbox.take(20)
            out = vigia("watch", folder, "--seconds", "20")
            assert live.members[0].device.failure == ""
        assert "SUCCEEDED, stage 1 of 1: 1 COMMITTED of 1" in out
        assert "line-1: COMMITTED" in out

    def test_stop_takes_assignments_back(self, folder, tmp_path):
        enrolled(folder, tmp_path, "line-1", "line-2")
        vigia("publish", folder, "line", "1.0")
        vigia("assign", folder, "line", "1.0", "--group", "hall", "--campaign", "june")
        topics = [Topics(PREFIX, name).assignment for name in ("line-1", "line-2")]
        assert set(topics) <= set(retained(folder))
        assert told("stop", folder, "june")["taken_back"] == ["line-1", "line-2"]
        assert not set(topics) & set(retained(folder))
        assert actions(folder)[-1] == "campaign.stop"
        assert told("stop", folder, "june")["taken_back"] == ["line-1", "line-2"]
        assert actions(folder).count("campaign.stop") == 1

    @pytest.mark.parametrize("command", ["stop", "watch"])
    def test_what_a_stop_could_not_take_back_is_taken_back_later(self, folder, tmp_path, command):
        enrolled(folder, tmp_path, "line-1")
        vigia("publish", folder, "line", "1.0")
        vigia("assign", folder, "line", "1.0", "--group", "hall", "--campaign", "june")
        with open_fleet(folder) as fleet:
            # As if the broker were away.
            stop_campaign(fleet, fleet.act(Permission.ASSIGN), "june", "bad pictures")
        topic = Topics(PREFIX, "line-1").assignment
        assert topic in retained(folder)
        vigia(command, folder, "june", code=0 if command == "stop" else 1)
        assert topic not in retained(folder)

    def test_a_later_campaigns_assignment_is_not_taken_back(self, folder, tmp_path):
        enrolled(folder, tmp_path, "line-1")
        vigia("publish", folder, "line", "1.0")
        for name in ("june", "july"):
            vigia("assign", folder, "line", "1.0", "--group", "hall", "--campaign", name)
            if name == "june":
                vigia("stop", folder, "june")
        assert told("stop", folder, "june")["taken_back"] == []
        assert Topics(PREFIX, "line-1").assignment in retained(folder)

    def test_what_has_succeeded_cannot_be_stopped(self, folder, tmp_path):
        devices = enrolled(folder, tmp_path, "line-1")
        with LiveDevices([(*device, "COMMITTED") for device in devices]):
            vigia(
                *("push", folder, "--family", "line", "--version", "1.0"),
                *("--device", "line-1", "--campaign", "june"),
            )
        with pytest.raises(FleetError, match="has ended: SUCCEEDED"):
            vigia("stop", folder, "june")

    def test_whoever_watches_keeps_the_metadata_alive(self, folder, tmp_path):
        enrolled(folder, tmp_path, "line-1")
        vigia("publish", folder, "line", "1.0")
        vigia("assign", folder, "line", "1.0", "--group", "hall", "--campaign", "june")
        before = retained(folder)[FleetTopics(PREFIX).trust]
        with open_fleet(folder, lambda: time.time() + 5 * 86_400) as fleet:
            ends = fleet.repository.expiries()["timestamp"]
            with Outlet(fleet.mqtt) as outlet:
                open_rollout(fleet, outlet, "june")
            assert fleet.repository.expiries()["timestamp"] >= ends + 4 * 86_400
        assert retained(folder)[FleetTopics(PREFIX).trust] != before

    def test_publish_goes_on_and_withdraw_takes_everything_back(self, folder):
        assert "2 blocks were sent" in vigia("publish", folder, "line", "1.0")
        assert "0 blocks were sent" in vigia("publish", folder, "line", "1.0")
        assert "2 blocks were sent" in vigia("publish", folder, "line", "1.0", "--anew")
        assert len(retained(folder)) == 5
        vigia("publish", folder, "line", "1.0", "--withdraw")
        assert set(retained(folder)) == {FleetTopics(PREFIX).trust}
        vigia("publish", folder)
        assert set(retained(folder)) == {FleetTopics(PREFIX).trust}

    def test_a_bundle_in_use_is_not_withdrawn(self, folder, tmp_path):
        enrolled(folder, tmp_path, "line-1")
        vigia("publish", folder, "line", "1.0")
        vigia("assign", folder, "line", "1.0", "--group", "hall", "--campaign", "june")
        with pytest.raises(FleetError, match="campaign 'june' needs it"):
            vigia("publish", folder, "line", "1.0", "--withdraw")

    def test_what_was_not_released_is_not_published(self, folder, model):
        vigia("pack", folder, model, "--family", "line", "--version", "2.0")
        with pytest.raises(FleetError, match="not released yet"):
            vigia("publish", folder, "line", "2.0")

    def test_what_is_not_published_is_not_assigned(self, folder, tmp_path):
        enrolled(folder, tmp_path, "line-1")
        with pytest.raises(FleetError, match=r"line 1\.0 is not published"):
            vigia("assign", folder, "line", "1.0", "--device", "line-1")
        with open_fleet(folder) as fleet, fleet.database.reading() as session:
            assert session.scalars(select(Campaign)).all() == []


class TestWithdrawal:
    def test_a_withdrawn_bundle_is_begun_by_nobody(self, folder, tmp_path):
        enrolled(folder, tmp_path, "line-1")
        vigia("publish", folder, "line", "1.0")
        vigia("assign", folder, "line", "1.0", "--device", "line-1", "--campaign", "june")
        out = vigia("withdraw", folder, "line", "1.0", "--why", "misses people")
        assert f"campaign june still assigns it: vigia fleet stop {folder} june" in "".join(
            line.rstrip() + " " for line in out.splitlines()
        ).replace("  ", " ")
        assert told("sign", folder, *RELEASE_KEYS)["complete"]
        vigia("stop", folder, "june")
        vigia("publish", folder)
        with open_fleet(folder) as fleet:
            assert fleet.repository.published().targets.targets == {}
            entries = {entry.action: entry.details for entry in fleet.audit.entries()}
        assert entries["release.withdraw"]["why"] == "misses people"
        with pytest.raises(FleetError, match=r"line 1\.0 is not published"):
            vigia("assign", folder, "line", "1.0", "--device", "line-1")
        with pytest.raises(FleetError, match="not released"):
            vigia("withdraw", folder, "line", "1.0")

    def test_it_counts_when_the_release_keys_have_signed(self, folder):
        assert told("withdraw", folder, "line", "1.0")["campaigns"] == []
        vigia("publish", folder)
        with open_fleet(folder) as fleet:
            assert list(fleet.repository.published().targets.targets) != []


class TestSigningElsewhere:
    def test_a_request_and_a_key_are_all_that_is_needed(self, folder, tmp_path, model):
        vigia("pack", folder, model, "--family", "line", "--version", "2.0")
        first = told("sign", folder, "line", "2.0", "--key", "release-1", "--yes")
        assert not first["complete"]
        assert "needs 1 more" in first["missing"][0]
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (request,) = first["requests"]
        shutil.copy(request, elsewhere)
        shutil.copy(Layout(folder).offline_keys / "release-2.key", elsewhere)
        made = told(
            *("sign", elsewhere / "targets.json", "--key", elsewhere / "release-2.key", "--yes")
        )
        (signature,) = made["signatures"]
        assert told("sign", folder, "--attach", signature)["complete"]
        vigia("publish", folder, "line", "2.0")

    def test_staging_again_keeps_the_signatures_that_are_there(self, folder, model):
        vigia("pack", folder, model, "--family", "line", "--version", "2.0")
        vigia("sign", folder, "line", "2.0", "--key", "release-1", "--yes")
        assert told("sign", folder, "line", "2.0", "--key", "release-2", "--yes")["complete"]

    def test_a_key_that_is_not_asked_for_signs_nothing(self, folder, model):
        vigia("pack", folder, model, "--family", "line", "--version", "2.0")
        with pytest.raises(FleetError, match="wanted for"):
            vigia("sign", folder, "line", "2.0", "--key", "root-1", "--yes")

    def test_who_does_not_agree_signs_nothing(self, folder, model):
        vigia("pack", folder, model, "--family", "line", "--version", "2.0")
        words = ["sign", str(folder), "line", "2.0", "--key", "release-1"]
        result = CliRunner().invoke(app, words, input="n\n")
        assert result.exit_code == 1
        assert "line/2.0/manifest.json" in result.stderr
        assert len(told("sign", folder)["missing"]) == 1
        assert "needs 2 more" in told("sign", folder)["missing"][0]


class TestRollback:
    def test_devices_get_a_signed_command_and_answer(self, folder, tmp_path):
        device, answer = enrolled(folder, tmp_path, "line-1")[0]
        topics = Topics(PREFIX, "line-1")
        config = MqttConfig(
            host="127.0.0.1", port=answer.port, tls=TlsConfig(**device.tls_files(answer))
        )
        link = Link(config, "vigia-line-1")
        heard = []

        def obey(_topic, payload):
            with open_fleet(folder) as fleet:
                keys = fleet.repository.published().targets.delegations
                operator = [keys.keys[i] for i in keys.roles["operators"].keyids]
            command = verify(payload, COMMAND, Command, operator)
            heard.append(command)
            reply = {
                "schema": COMMAND_REPLY,
                "device": "line-1",
                "ts": 1.0,
                "nonce": command.nonce,
                "verb": command.verb,
                "done": True,
            }
            link.publish(topics.reply(command.nonce), json.dumps(reply).encode(), qos=1)

        link.subscribe(topics.command("+"), obey, qos=1)
        link.start()
        assert link.wait_connected(10)
        out = told("rollback", folder, "--device", "line-1", "--wait", "20")
        link.close(1)
        assert out == {"line-1": {"done": True, "reason": ""}}
        assert (heard[0].device, heard[0].verb, heard[0].slot) == ("line-1", "rollback", "main")
        assert actions(folder)[-1] == "command.rollback"

    def test_a_device_that_does_not_answer_is_told(self, folder, tmp_path):
        enrolled(folder, tmp_path, "line-1")
        out = vigia("rollback", folder, "--device", "line-1", "--wait", "0.2", code=1)
        assert out == "line-1: no answer\n"


class TestFloods:
    def test_a_rogue_device_keeps_nobody_elses_report_out(self, folder, tmp_path, monkeypatch):
        honest, rogue = enrolled(folder, tmp_path, "line-1", "rogue")
        vigia("publish", folder, "line", "1.0")
        vigia("assign", folder, "line", "1.0", "--device", "line-1", "--campaign", "june")
        topics = Topics(PREFIX, "rogue")
        config = MqttConfig(
            host="127.0.0.1", port=rogue[1].port, tls=TlsConfig(**rogue[0].tls_files(rogue[1]))
        )
        done, flooded = threading.Event(), threading.Event()
        put = Inbox.put

        def noting(inbox, topic, payload):
            put(inbox, topic, payload)
            flooded.set()

        monkeypatch.setattr(Inbox, "put", noting)

        def honest_device():
            # It reports when the controller is in the middle of the flood.
            assert flooded.wait(20)
            with LiveDevices([(*honest, "COMMITTED")]):
                done.wait(30)

        def flood(outlet):
            for number in itertools.count():
                if done.is_set():
                    return
                for topic in (
                    topics.update_request,
                    topics.update_report("main"),
                    topics.update_state(f"s{number % 1000}"),
                ):
                    outlet.send(topic, b"\xff" * 200, retain=False)

        with Outlet(config) as outlet:
            threads = [
                threading.Thread(target=flood, args=(outlet,), daemon=True),
                threading.Thread(target=honest_device, daemon=True),
            ]
            for thread in threads:
                thread.start()
            result = told("watch", folder, "--seconds", "30")
            done.set()
            for thread in threads:
                thread.join()
        assert result["status"] == "SUCCEEDED"
        counted = sum(result["dropped"].values()) + sum(result["requests"].values())
        assert counted > 0
        assert result["requests"].get("garbage", 0) <= 24


class TestStricterRules:
    def test_they_are_in_the_campaign_and_in_the_audit_log(self, folder, tmp_path):
        enrolled(folder, tmp_path, "line-1")
        rules = tmp_path / "stricter.json"
        rules.write_text(json.dumps({"canary": {"seconds": 600}}))
        vigia("publish", folder, "line", "1.0")
        vigia("assign", folder, "line", "1.0", "--device", "line-1", "--stricter", rules)
        envelope = retained(folder)[Topics(PREFIX, "line-1").assignment]
        assert unverified(envelope, Assignment).canary.seconds == 600
        with open_fleet(folder) as fleet:
            last = list(fleet.audit.entries())[-1]
        assert last.details["stricter"] == {"canary": {"seconds": 600}}


class TestApprovals:
    @pytest.fixture
    def folder(self, folder, tmp_path):
        """With a published bundle, ann and bob, and devices that ask for both."""
        enrolled(folder, tmp_path, "line-1")
        vigia("operator", "add", folder, "bob", "--role", "operator")
        vigia("operator", "approvals", folder, "2", "--as", "ann")
        vigia("sign", folder, *RELEASE_KEYS, "--as", "ann")
        vigia("publish", folder, "line", "1.0", "--as", "ann")
        return folder

    def approval(self, folder, tmp_path, by, campaign="june"):
        file = tmp_path / f"{by}-{campaign}.json"
        vigia(
            *("approve", folder, "line", "1.0", "--campaign", campaign, "--out", file),
            *("--as", by),
        )
        assert file.stat().st_mode & 0o777 == 0o600
        return file

    def assign(self, folder, *files):
        given = [word for file in files for word in ("--approval", file)]
        vigia(
            *("assign", folder, "line", "1.0", "--group", "hall", "--campaign", "june"),
            *(*given, "--as", "ann"),
        )

    def test_the_same_operator_counts_once(self, folder, tmp_path):
        with pytest.raises(FleetError, match="2 operators approve, 1 have"):
            self.assign(folder, self.approval(folder, tmp_path, "ann"))

    def test_of_another_campaign_or_none_at_all_is_refused(self, folder, tmp_path):
        garbage = tmp_path / "garbage.json"
        garbage.write_bytes(b"\xff{}")
        for file in (self.approval(folder, tmp_path, "bob", "july"), garbage):
            with pytest.raises(FleetError, match="is no approval of campaign 'june'"):
                self.assign(folder, file)
        with pytest.raises(FleetError, match="No such file"):
            self.assign(folder, tmp_path / "none.json")

    def test_a_campaign_lacks_nothing_that_the_release_keys_demand(self, folder, tmp_path):
        files = [self.approval(folder, tmp_path, by) for by in ("ann", "bob")]
        self.assign(folder, *files)
        with open_fleet(folder) as fleet, fleet.database.reading() as session:
            rules = json.loads(session.scalars(select(Campaign.rules)).one())
        assert len(rules["approvals"]) == 2


@pytest.mark.slow
class TestSimulate:
    def test_fifty_devices_commit_through_the_broker_and_leave_nothing(self, folder, tmp_path):
        vigia("publish", folder, "line", "1.0")
        before = set(retained(folder))
        result = told("simulate", folder, "line", "1.0", "--devices", "50")
        assert result["succeeded"]
        assert result["outcomes"] == {"COMMITTED": 50}
        with open_fleet(folder) as fleet, fleet.database.reading() as session:
            row = session.scalars(select(Bundle)).one()
            assert session.scalars(select(Campaign)).all() == []
            size = BundleFiles(fleet.layout.bundles / row.folder).manifest.ciphertext.length
        assert result["bytes"] >= 50 * size
        assert result["rss_peak_mb"] - result["rss_begin_mb"] < 16
        assert set(retained(folder)) == before

    def test_what_is_not_published_cannot_be_simulated(self, folder):
        with pytest.raises(FleetError, match="not published"):
            vigia("simulate", folder, "line", "1.0", "--devices", "1")
