"""The supervision of a build: real child processes that do what a build must not."""

from __future__ import annotations

import os
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from agent.buildprocess import MAX_LINE_BYTES, NICE, BuildProcess, Built, HostFaultError
from engines.backend import Progress
from engines.errors import BuildError

SOON_S = 20.0

HEAD = """
import json, os, signal, subprocess, sys, time
os.setpgid(0, 0)
request = json.loads(sys.stdin.readline())
def say(**message):
    print(json.dumps(message), flush=True)
def progress(step, done=0, total=0):
    say(progress={"step": step, "done": done, "total": total})
REPORT = {"plan": "ab12", "cached": False, "value": {"chosen": {"precision": "int8"}}}
"""


def build(body: str, timeout_s: float = SOON_S) -> BuildProcess:
    """A build whose child runs `body`."""
    script = HEAD + textwrap.dedent(body)
    return BuildProcess({"slot": "main"}, timeout_s, (sys.executable, "-c", script))


def run(body: str, timeout_s: float = SOON_S) -> tuple[Built, list[Progress]]:
    told: list[Progress] = []
    return build(body, timeout_s).run(told.append), told


def fails(body: str, timeout_s: float = SOON_S) -> str:
    with pytest.raises(BuildError) as caught:
        run(body, timeout_s)
    return str(caught.value)


class Background:
    """A build in a thread of its own, once it has told its first step."""

    def __init__(self, process: BuildProcess) -> None:
        self.process = process
        self.error: BuildError | None = None
        self.step = ""
        self._told = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._told.wait(SOON_S)

    def _run(self) -> None:
        try:
            self.process.run(self._tell)
        except BuildError as error:
            self.error = error
            self._told.set()

    def _tell(self, progress: Progress) -> None:
        self.step = progress.step
        self._told.set()

    def join(self) -> str:
        self._thread.join(SOON_S)
        assert not self._thread.is_alive()
        return str(self.error)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + SOON_S
    tick = threading.Event()
    while not gone(pid):
        assert time.monotonic() < deadline
        tick.wait(0.01)


def test_progress_is_told_as_it_comes_and_the_report_at_the_end():
    built, told = run("progress('calibrating', 3, 10); progress('building'); say(report=REPORT)")
    assert built == Built("ab12", {"chosen": {"precision": "int8"}})
    assert told == [Progress("calibrating", 3, 10), Progress("building", 0, 0)]


def test_the_request_reaches_the_child_and_nothing_of_it_stands_in_its_arguments():
    built, _ = run(
        """
        value = {"request": request, "arguments": " ".join(sys.argv)}
        say(report={"plan": "x", "cached": False, "value": value})
        """
    )
    assert built.value["request"] == {"slot": "main"}
    assert "main" not in built.value["arguments"]


def test_an_error_that_the_child_tells_is_the_reason():
    assert fails("say(error='no pictures in /data')") == "no pictures in /data"


def test_a_crash_is_told_with_the_last_words():
    said = fails("raise MemoryError('too large a graph')")
    assert "ended with code 1" in said
    assert "too large a graph" in said


def test_an_end_without_a_report_is_a_failure():
    assert "without a report" in fails("progress('building')")


def test_a_child_that_is_killed_is_told_with_the_signal():
    said = fails("os.kill(os.getpid(), signal.SIGKILL)")
    assert "SIGKILL" in said
    assert "memory" in said
    assert "SIGSEGV" in fails("os.kill(os.getpid(), signal.SIGSEGV)")


def test_a_program_that_is_not_there_is_told():
    process = BuildProcess({}, SOON_S, ("/nonexistent/python",))
    with pytest.raises(BuildError, match="cannot be started"):
        process.run(lambda _: None)


def test_noise_among_the_lines_is_passed_over():
    built, told = run(
        f"""
        print('[libnvinfer] hello')
        print('[1, 2]')
        print('{{"progress": 7}}')
        print('{{"report": {{}}}}')
        os.write(1, b'\\xff\\xfe\\n' + b'x' * {MAX_LINE_BYTES + 70_000} + b'\\n')
        print('x' * 100, file=sys.stderr)
        progress('building')
        say(report=REPORT)
        """
    )
    assert built.plan == "ab12"
    assert told == [Progress("building")]


def test_a_child_that_floods_standard_error_does_not_block():
    built, _ = run("sys.stderr.write('noise\\n' * 200_000); say(report=REPORT)")
    assert built.plan == "ab12"


def test_a_build_that_takes_too_long_is_ended():
    began = time.monotonic()
    assert "given up after 0.3 s" in fails("progress('x'); time.sleep(600)", timeout_s=0.3)
    assert time.monotonic() - began < 10


def test_a_child_that_ignores_the_request_to_end_is_killed():
    said = fails(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); progress('x'); time.sleep(600)",
        timeout_s=0.3,
    )
    assert "given up" in said


def test_cancelling_ends_the_child_and_what_it_has_started():
    running = Background(
        build(
            """
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            progress(f"{os.getpid()} {child.pid}")
            time.sleep(600)
            """
        )
    )
    pids = [int(pid) for pid in running.step.split()]
    running.process.cancel()
    assert "cancelled" in running.join()
    for pid in pids:
        wait_gone(pid)


def test_what_a_crashed_child_leaves_behind_is_ended_and_holds_nothing_up():
    running = Background(
        build(
            """
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            progress(str(child.pid))
            os._exit(3)
            """
        )
    )
    assert "ended with code 3" in running.join()
    wait_gone(int(running.step))


def test_a_build_that_was_cancelled_before_its_start_never_starts(tmp_path):
    mark = tmp_path / "started"
    process = build(f"open({str(mark)!r}, 'w')")
    process.cancel()
    with pytest.raises(BuildError, match="cancelled"):
        process.run(lambda _: None)
    assert not mark.exists()


def test_cancelling_a_build_that_is_over_does_nothing():
    process = build("say(report=REPORT)")
    process.run(lambda _: None)
    process.cancel()


def test_the_child_comes_last():
    # Its priorities are set from outside, so that even its imports come last.
    built, _ = run(
        """
        import psutil
        facts = {}
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and facts.get("io") != psutil.IOPRIO_CLASS_IDLE:
            facts["nice"] = os.getpriority(os.PRIO_PROCESS, 0)
            facts["oom"] = open("/proc/self/oom_score_adj").read().strip()
            facts["io"] = psutil.Process().ionice().ioclass
        say(report={"plan": "x", "cached": False, "value": facts})
        """
    )
    assert built.value["nice"] == NICE
    assert built.value["oom"] == "1000"
    assert built.value["io"] == psutil.IOPRIO_CLASS_IDLE


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_no_descriptor_and_no_zombie_is_left():
    run("say(report=REPORT)")
    before = open_descriptors(), set(psutil.Process().children())
    for _ in range(3):
        run("say(report=REPORT)")
        fails("sys.exit(1)")
    assert (open_descriptors(), set(psutil.Process().children())) == before


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_child_gets_variables_and_descriptors_that_are_meant_for_it():
    reading, writing = os.pipe()
    os.write(writing, b"from the agent")
    os.close(writing)
    script = HEAD + textwrap.dedent(
        """
        value = {"tmp": os.environ["TMPDIR"], "path": "PATH" in os.environ,
                 "said": os.read(request["fd"], 99).decode()}
        say(report={"plan": "x", "value": value})
        """
    )
    process = BuildProcess(
        {"fd": reading},
        SOON_S,
        (sys.executable, "-c", script),
        environment={"TMPDIR": "/dev/shm/x"},
        inherited=(reading,),
    )
    try:
        built = process.run(lambda _: None)
    finally:
        os.close(reading)
    assert built.value == {"tmp": "/dev/shm/x", "path": True, "said": "from the agent"}


def test_what_it_does_is_called_by_its_name():
    script = HEAD + "os.kill(os.getpid(), signal.SIGSEGV)"
    process = BuildProcess({}, SOON_S, (sys.executable, "-c", script), what="trial")
    with pytest.raises(BuildError, match="the trial was ended by SIGSEGV"):
        process.run(lambda _: None)


def test_faults_of_the_machine_are_told_from_faults_of_the_model():
    with pytest.raises(HostFaultError, match="disk full"):
        run("say(error='disk full', kind='PlanError')")
    with pytest.raises(HostFaultError, match="cannot be started"):
        BuildProcess({}, SOON_S, ("/nonexistent/python",)).run(lambda _: None)
    with pytest.raises(BuildError) as caught:
        run("say(error='no engine', kind='BuildError')")
    assert not isinstance(caught.value, HostFaultError)


DUMPS = """
import sys
from agent.childside import serve
from agent.errors import AgentError
def act(request, tell):
    import resource
    if request["fails"]:
        raise AgentError("not this way")
    return "ab", {"core": resource.getrlimit(resource.RLIMIT_CORE)[0]}
sys.exit(serve(act))
"""


def test_a_child_that_handles_plaintext_leaves_no_core_dump():
    process = BuildProcess({"fails": False}, SOON_S, (sys.executable, "-c", DUMPS))
    # Of one byte, and so none: a limit of none would not keep one from a handler it is piped to.
    assert process.run(lambda _: None).value["core"] in (0, 1)


def test_an_error_of_ours_in_a_child_is_told_with_its_text():
    process = BuildProcess({"fails": True}, SOON_S, (sys.executable, "-c", DUMPS))
    with pytest.raises(BuildError, match="not this way"):
        process.run(lambda _: None)
