"""An update rehearsed from nothing: a fleet is made, a device enrolled, models are pushed to it.

All of it by the commands that people use, through a real Mosquitto with mutual TLS and the access
list that `vigia fleet init` wrote; one agent runs the sample video. `scripts/rehearse-update` shows
it, tests/integration/test_rehearsal.py runs it as a test. While it goes on, `mosquitto_sub` keeps
everything that passes through the broker, and in the end that, and every file below the device's
state folder, is searched for the models and for keys.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml
from typing_extensions import Self

from fleet.database import Database
from fleet.tables import Bundle
from fleet.vault import Vault
from tests.integration.mosquitto import binary
from tests.integration.overheard import Overheard
from tests.integration.ports import free_port
from tests.integration.subscriber import until
from tests.vectors import conveyors

ROOT = Path(__file__).parents[2]
VIDEO = ROOT / "examples" / "conveyor" / "sample.mp4"
DEVICE = "gate-1"
PASSPHRASE = "a rehearsal needs no secret"
SOON_S = 60.0
PUSH_S = 180.0
FPS = 6

KILL_AT_BLOCK = 40
"""Of about 60: the agent is killed in the middle of the transfer."""

RUN_BYTES = 48
"""Of plaintext, that must not be found anywhere."""

RUNS = 200
"""Taken from each model, evenly."""


class RehearsalError(Exception):
    """Something did not go as it must."""


def check(holds: object, what: str) -> None:
    """Raises RehearsalError if it does not hold."""
    if not holds:
        raise RehearsalError(what)


class Rehearsal:
    """See the module.

    Args:
        folder: for everything; empty.
        say: told what is being done, for people.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._say = say
        self._fleet = folder / "fleet"
        self._state = folder / "device" / "state"
        self._cache = folder / "device" / "cache"
        self._dump = folder / "everything.txt"
        self._overheard = Overheard(self._dump)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._agent: subprocess.Popen[bytes] | None = None
        self._models: dict[str, bytes] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait(SOON_S)

    def run(self) -> dict[str, object]:
        """All of it, in order.

        Returns:
            What was found, as JSON values.

        Raises:
            RehearsalError: something did not go as it must.
        """
        self._prepare()
        self._found_fleet()
        self._enrol()
        self._listen()
        self._start_agent()
        return {
            "better": self._push_better(),
            "sabotaged": self._push_sabotaged(),
            "older": self._push_older(),
            "killed": self._push_through_a_kill(),
            "secrets": self._search(),
        }

    def _prepare(self) -> None:
        self._models = {
            "v1": conveyors.halved(0.1),
            "v2": conveyors.original(),
            "v3": conveyors.halved(),
            "v4": conveyors.retrained(),
        }
        for name, model in self._models.items():
            conveyors.write(self._folder, f"{name}.onnx", model)
        for place, content in conveyors.golden(16).items():
            conveyors.write(self._folder / "data", place, content)

    def _found_fleet(self) -> None:
        self._say("making a fleet: keys, certificates, a broker's configuration")
        self._port = free_port()
        self._vigia("fleet", "init", self._fleet, "--broker-host", "localhost", "--broker-port",
                    self._port, "--operator", "ana", "--json")  # fmt: skip
        log = self._folder / "broker.log"
        self._spawn(log, binary(), "-c", self._fleet / "broker" / "mosquitto.conf")
        until(lambda: "running" in log.read_text(), SOON_S)

    def _enrol(self) -> None:
        self._say("enrolling a device: its identity, the controller's answer")
        identity, answer = self._folder / "identity.json", self._folder / "answer.json"
        own = ("--state", self._state, "--device", DEVICE)
        self._vigia("enroll", *own, "--out", identity)
        self._vigia("fleet", "enroll", self._fleet, identity, "--yes", "--out", answer)
        lines = self._vigia("enroll", "install", answer, *own)
        config = yaml.safe_load(lines)
        config["mqtt"]["detections"] = {"qos": 1}
        config["mqtt"]["reconnect_max_s"] = 1
        self._config = self._folder / "agent.yaml"
        camera = {"source": str(VIDEO), "loop": True, "realtime": True, "fps": FPS}
        model = {"path": str(self._folder / "v1.onnx"), "backend": "onnxruntime",
                 "precision": "fp32", "threads": 1}  # fmt: skip
        rest = {
            "cameras": {"belt": camera},
            "models": {"main": model},
            "pipeline": {"cache_dir": str(self._cache)},
        }
        self._config.write_text(yaml.safe_dump({**config, **rest}))

    def _listen(self) -> None:
        """Keep all that passes through the broker: topic, a space, the payload in hexadecimal."""
        tls = self._fleet / "controller"
        self._dump.touch()
        self._spawn(self._dump, shutil.which("mosquitto_sub") or "mosquitto_sub", "-h", "localhost",
                    "-p", self._port, "-t", "#", "-q", 1, "-F", "%t %x",
                    "--cafile", self._fleet / "broker" / "ca.pem",
                    "--cert", tls / "controller.pem", "--key", tls / "controller.key")  # fmt: skip

    def _start_agent(self, **environ: str) -> None:
        log = self._folder / f"agent{len(self._processes)}.log"
        self._agent = self._spawn(
            log, sys.executable, "-m", "agent", "run", "-c", self._config, environ=environ
        )
        seen = len(self._overheard.messages("/cam/belt/detections"))
        until(lambda: len(self._overheard.messages("/cam/belt/detections")) >= seen + 3, SOON_S)

    def _push_better(self) -> dict[str, object]:
        self._say("packing and publishing release 1, which nobody is assigned")
        self._release("v1")
        self._say("pushing a better model")
        self._push("v2", 0)
        report = self._last_state()
        check(report["state"] == "COMMITTED", f"the better model was not committed: {report}")
        frames = len(self._detections())
        until(lambda: len(self._detections()) >= frames + FPS, SOON_S)
        digests = self._served()
        check(len(digests) == 2, f"{len(digests)} models have made detections, not two")
        self._seamless()
        self._say(
            f"  committed; the model's digest changed after frame, no gap in {frames} messages"
        )
        return {"figures": report.get("figures", {}), "messages": frames}

    def _push_sabotaged(self) -> dict[str, object]:
        self._say("pushing a sabotaged model")
        self._push("v3", 1)
        state = self._last_state()
        check(state["state"] == "REJECTED", f"the sabotaged model was not rejected: {state}")
        check(state.get("reason"), "the sabotaged model was rejected without a reason")
        check(len(self._served()) == 2, "the sabotaged model has served")
        self._say(f"  rejected: {state['reason']}")
        return {"reason": state["reason"], "figures": state.get("figures", {})}

    def _push_older(self) -> dict[str, object]:
        self._say("assigning the older release 1")
        self._vigia("fleet", "push", self._fleet, "--family", "conveyor", "--version", "v1",
                    "--device", DEVICE, "--yes", code=1, limit_s=PUSH_S)  # fmt: skip
        state = self._last_state()
        check(state["state"] == "REJECTED", f"the older release was not refused: {state}")
        check("older" in str(state["reason"]), f"refused for another reason: {state['reason']}")
        self._say(f"  refused: {state['reason']}")
        return {"reason": state["reason"]}

    def _push_through_a_kill(self) -> dict[str, object]:
        self._say("pushing another model; the agent is killed in the middle of the transfer")
        self._stop_agent()
        self._start_agent(VIGIA_FAILPOINT=f"C1.block:{KILL_AT_BLOCK}")
        pushing = self._begin_push("v4")
        agent = self._agent
        assert agent is not None
        until(lambda: agent.poll() is not None, SOON_S)
        check(agent.returncode == -signal.SIGKILL, f"the agent ended with {agent.returncode}")
        self._say("  killed; starting it again")
        self._start_agent()
        self._end_push(pushing, 0)
        state = self._last_state()
        check(state["state"] == "COMMITTED", f"the killed update was not committed: {state}")
        self._seamless()
        self._stop_agent()
        self._say("  resumed and committed")
        return {"figures": state.get("figures", {})}

    def _search(self) -> dict[str, object]:
        self._say("searching everything that was sent, and the device's disk, for models and keys")
        secrets = self._secrets()
        places = {"the broker's messages": self._overheard.payloads()}
        for folder in (self._state, self._cache):
            for path in folder.rglob("*"):
                if path.is_file():
                    places[str(path.relative_to(self._folder))] = path.read_bytes()
        for place, content in places.items():
            for what, run in secrets:
                own = what == "private key of the device" and place.endswith(".key")
                check(own or run not in content, f"{what} was found in {place}")
        check(any(len(content) > 10**6 for content in places.values()), "nothing was searched")
        total = sum(map(len, places.values()))
        self._say(f"  nothing in {total / 1e6:.0f} MB ({len(secrets)} byte runs and keys)")
        return {"searched_bytes": total, "runs": len(secrets)}

    def _secrets(self) -> list[tuple[str, bytes]]:
        """What must not be found, and what it is."""
        found = []
        for name in ("v2", "v3", "v4"):
            model = self._models[name]
            step = len(model) // RUNS
            runs = {model[at : at + RUN_BYTES] for at in range(0, len(model) - RUN_BYTES, step)}
            # Text of the format is in other files too; weights are nowhere else.
            found += [(f"plaintext of {name}", r) for r in runs if len(set(r)) > RUN_BYTES // 2]
        check(len(found) > RUNS, "too few byte runs were taken from the models")
        keys = {"private key of the device": self._device_keys(), "data key": self._data_keys()}
        for what, values in keys.items():
            for value in values:
                found += [
                    (what, form)
                    for form in (value, base64.b64encode(value)[:-2], value.hex().encode())
                ]
        return found

    def _device_keys(self) -> list[bytes]:
        return [
            base64.b64decode("".join(path.read_text().splitlines()[1:-1]))[-64:]
            for path in self._state.glob("*.key")
        ]

    def _data_keys(self) -> list[bytes]:
        vault = Vault(self._fleet / "keys" / "online")
        database = Database(f"sqlite:///{self._fleet / 'fleet.db'}")
        with database.reading() as session:
            wrapped = [bundle.data_key for bundle in session.query(Bundle)]
        database.close()
        return [vault.unwrap_secret(data, PASSPHRASE) for data in wrapped]

    def _release(self, name: str) -> None:
        self._vigia("fleet", "pack", self._fleet, self._folder / f"{name}.onnx", *self._facts(name))
        keys = ("--key", "release-1", "--key", "release-2")
        self._vigia("fleet", "sign", self._fleet, "conveyor", name, *keys, "--yes")
        self._vigia("fleet", "publish", self._fleet, "conveyor", name)

    def _facts(self, name: str) -> list[object]:
        data = self._folder / "data"
        return ["--family", "conveyor", "--version", name, "--golden", data / "golden", "--truth",
                data / "truth.json", "--metric", "map50_95", "--max-drop", 0.05,
                "--shadow-seconds", 1, "--canary-seconds", 2]  # fmt: skip

    def _push(self, name: str, code: int) -> None:
        self._end_push(self._begin_push(name), code)

    def _begin_push(self, name: str) -> subprocess.Popen[bytes]:
        return self._spawn(
            self._folder / f"push-{name}.log", sys.executable, "-m", "agent", "fleet", "push",
            self._fleet, self._folder / f"{name}.onnx", *self._facts(name), "--key", "release-1",
            "--key", "release-2", "--device", DEVICE, "--yes",
        )  # fmt: skip

    def _end_push(self, process: subprocess.Popen[bytes], code: int) -> None:
        try:
            found = process.wait(PUSH_S)
        except subprocess.TimeoutExpired:
            raise RehearsalError(f"a push has not ended after {PUSH_S:g} s") from None
        if found != code:
            logs = sorted(self._folder.glob("push-*.log"), key=lambda p: p.stat().st_mtime)
            raise RehearsalError(
                f"`vigia fleet push` ended with {found}, not {code}:\n"
                f"{logs[-1].read_text()[-2000:]}"
            )

    def _stop_agent(self) -> None:
        assert self._agent is not None
        self._agent.send_signal(signal.SIGTERM)
        check(self._agent.wait(SOON_S) == 0, "the agent did not end in order")

    def _vigia(self, *words: object, code: int = 0, limit_s: float = SOON_S) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "agent", *map(str, words)],
            capture_output=True,
            text=True,
            timeout=limit_s,
            cwd=ROOT,
            env=self._environ(),
            check=False,
        )
        if done.returncode != code:
            shown = " ".join(map(str, words[:3]))
            raise RehearsalError(
                f"`vigia {shown} ...` ended with {done.returncode}, not {code}:\n"
                f"{done.stdout[-1000:]}{done.stderr[-2000:]}"
            )
        return done.stdout

    def _spawn(
        self, log: Path, *words: object, environ: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            process = subprocess.Popen(
                list(map(str, words)),
                stdout=out,
                stderr=out,
                cwd=ROOT,
                env=self._environ() | (environ or {}),
            )
        self._processes.append(process)
        return process

    def _environ(self) -> dict[str, str]:
        return {**os.environ, "VIGIA_FLEET_PASSPHRASE": PASSPHRASE}

    def _detections(self) -> list[dict[str, object]]:
        return self._overheard.messages("/cam/belt/detections")

    def _last_state(self) -> dict[str, object]:
        return self._overheard.messages("/update/state/main")[-1]

    def _served(self) -> list[str]:
        digests = [str(m["model"]["digest"]) for m in self._detections()]  # type: ignore[index]
        return [d for d, before in zip(digests, [None, *digests], strict=False) if d != before]

    def _seamless(self) -> None:
        """No gap in the numbers of any run of the agent."""
        numbers: dict[object, list[object]] = {}
        for message in self._detections():
            numbers.setdefault(message["boot"], []).append(message["seq"])
        for found in numbers.values():
            check(found == list(range(len(found))), "detections are missing")


def main() -> int:
    """Rehearse, telling how it goes."""
    parser = argparse.ArgumentParser(prog="rehearse-update", description=__doc__)
    parser.add_argument("--folder", type=Path, help="keep everything there; must be empty")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    options = parser.parse_args()
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="vigia-rehearsal-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with Rehearsal(folder.absolute(), say) as rehearsal:
                found = rehearsal.run()
        except RehearsalError as error:
            say(f"FAILED: {error}")
            return 1
    say("all of it went as it must")
    if options.json:
        print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
