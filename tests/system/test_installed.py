"""What was installed is active, ready soon, and tells how it is."""

from __future__ import annotations

import json

from tests.system.container import Container
from tests.system.device import READY_S, VIGIA, install, pid, serves, since_boot_s
from tests.system.record import Record


def test_service_is_active_and_ready_soon(agent: Container, log: Record):
    log.holds("active", agent.show("ActiveState") == "active")
    log.holds("starts at every boot", agent.show("UnitFileState") == "enabled")
    log.holds("ready is what the agent says, not that it exists", agent.show("Type") == "notify")
    ready_s = since_boot_s(agent, "ActiveEnter") - since_boot_s(agent, "InactiveExit")
    log.holds(f"READY=1 within {READY_S:g} s", ready_s < READY_S, f"{ready_s:.2f} s")
    # Not before the first frame was analysed: a process is not ready because it exists.
    log.holds("but not before anything was analysed", ready_s > 0.1)
    log.holds("detections at the broker", serves(agent) < READY_S)


def test_systemd_is_told_how_it_goes(agent: Container, log: Record):
    agent.until("systemctl show -P StatusText vigia-agent | grep -q 'serving 1 camera'", 15)
    log.holds("STATUS= says what it does", True, agent.show("StatusText"))
    log.holds("no failure since the start", agent.show("NRestarts") == "0")


def test_vigia_service_status(agent: Container, log: Record):
    done = agent.run(VIGIA, "service", "status", "--json")
    said = json.loads(done.stdout)
    log.holds("exit code 0 while it is active", done.returncode == 0)
    log.holds("systemd's state", said["ActiveState"] == "active", said["SubState"])
    log.holds("the release", said["Release"].startswith("/opt/vigia/releases/"), said["Release"])
    log.holds("the process", said["MainPID"] == str(pid(agent)), said["MainPID"])
    text = agent.run(VIGIA, "service", "status").stdout
    log.holds("the same for people", "ActiveState: active" in text and "StatusText: " in text)


def test_vigia_status(agent: Container, log: Record):
    done = agent.run(VIGIA, "status", "-c", "/etc/vigia/agent.yaml", "--json", check=False)
    said = json.loads(done.stdout)
    log.holds("exit code 0 while all is well", done.returncode == 0, done.stderr or "0")
    log.holds("asks systemd", said["service"]["ActiveState"] == "active")
    log.holds("asks the agent itself", said["agent"]["health"]["ready"] is True)
    text = agent.run(VIGIA, "status", "-c", "/etc/vigia/agent.yaml").stdout
    line = next(line for line in text.splitlines() if line.startswith("camera belt"))
    log.holds("a line for the camera", "online" in line, line)


def test_vigia_logs(agent: Container, log: Record):
    lines = agent.run(VIGIA, "logs", "-n", "20").stdout.splitlines()
    log.holds("the journal's lines", 0 < len(lines) <= 20, f"{len(lines)}; last: {lines[-1][:90]}")
    log.holds("readable, without marks", not any(line.startswith(("<", "{")) for line in lines))
    errors = agent.run(VIGIA, "logs", "--level", "error").stdout.splitlines()
    log.holds("none of an error", errors == [], len(errors))
    kept = agent.shell("journalctl -u vigia-agent -o json -n 200 | grep -o '\"PRIORITY\":\"[0-9]\"'"
                       " | sort | uniq -c")  # fmt: skip
    log.holds("priorities of their own in the journal", '"PRIORITY":"6"' in kept,
              " ".join(kept.split()))  # fmt: skip


def test_installing_again_changes_nothing(agent: Container, log: Record):
    was = agent.shell("cat /etc/vigia/agent.yaml")
    said = agent.run(VIGIA, "service", "install", "--config", "/root/agent.yaml").stdout
    log.holds("no file of the service written", "files of the service written: 0" in said)
    log.holds("the configuration stays", "stays as it is" in said)
    log.holds("byte for byte", agent.shell("cat /etc/vigia/agent.yaml") == was)
    log.holds("ready again", "the service is ready" in said and serves(agent) < READY_S)


def test_credentials_reach_the_service_only(agent: Container, log: Record):
    agent.write("/etc/vigia/credentials/mqtt-password", "swordfish")
    said = agent.run(VIGIA, "service", "install").stdout
    assert "the service is ready" in said
    place = "/run/credentials/vigia-agent.service/mqtt-password"
    user = agent.shell(
        f"nsenter -t {pid(agent)} -m setpriv --reuid vigia --regid vigia --clear-groups cat {place}"
    )
    log.holds("the service's user reads the credential", user == "swordfish")
    denied = agent.run("setpriv", "--reuid", "nobody", "--clear-groups", "cat", place, check=False)
    log.holds("another user does not", denied.returncode != 0)
    log.holds("not in the unit", "swordfish" not in agent.shell("systemctl cat vigia-agent"))
    agent.shell(f"rm /etc/vigia/credentials/mqtt-password; {VIGIA} service install")
    gone = "mqtt-password" not in agent.shell("systemctl cat vigia-agent")
    log.holds("a credential that was taken away is not loaded any more", gone)


def test_options_that_cannot_be_are_refused(agent: Container, log: Record):
    done = agent.run("/src/first/scripts/install", "--frob", check=False)
    log.holds("an unknown option", done.returncode == 2 and "--frob" in done.stderr)
    done = agent.run("/src/first/scripts/install", "--wheels", "/nowhere", check=False)
    log.holds("a folder that is not there", done.returncode == 2 and "/nowhere" in done.stderr)
    said = install(agent, "first", "--help")
    log.holds("--help says what there is", "--uninstall" in said)
