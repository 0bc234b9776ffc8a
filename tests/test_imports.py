"""Who may import whom: read from the imports of the source, also of those for types only."""

import ast
import fnmatch
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("agent", "engines", "fleet")

BACKEND = ("engines.backend", "engines.base", "engines.errors", "engines.graph", "engines.model",
           "engines.precision", "engines.source", "engines.weights")  # fmt: skip

# Module pattern -> patterns of our own modules it may import. The longest pattern that fits counts.
# A module without a rule is an error: who may import what is decided when a module is made.
PROJECT: dict[str, tuple[str, ...]] = {
    # The model runtime knows nothing of the agent; its backends know little of it.
    "engines": (),
    "engines.*": ("engines.*",),
    # A backend knows the contract and the graph tools, never another backend or the choice.
    "engines.ort*": (*BACKEND, "engines.fingerprint", "engines.ort*"),
    "engines.ortprofile": (*BACKEND, "engines.ort"),
    "engines.orttensors": (*BACKEND, "engines.ort"),
    "engines.openvino*": (*BACKEND, "engines.fingerprint", "engines.openvino*"),
    "engines.trt*": (*BACKEND, "engines.calibcache", "engines.durable", "engines.filelock",
                     "engines.images", "engines.qdqrules", "engines.regions", "engines.trt*"),
    # Shared nouns and small tools.
    "agent": (),
    "agent.errors": (),
    "agent.frame": (),
    "agent.detection": (),
    "agent.interfaces": ("agent.frame", "agent.detection"),
    "agent.backoff": (),
    "agent.secrets": (),
    "agent.threads": (),
    "agent.versions": (),
    "agent.opencv": ("agent.errors",),
    "agent.device": ("agent.config", "agent.jetson"),
    "agent.memory": (),
    "agent.sdnotify": (),
    "agent.progress": (),
    "agent.stallpoint": (),
    "agent.stallplan": ("agent.progress",),
    "agent.stallrules": ("agent.confighealth", "agent.progress"),
    "agent.stallreport": (),
    "agent.healthready": (),
    "agent.health": ("agent.confighealth", "agent.healthready", "agent.progress", "agent.sdnotify",
                     "agent.stallplan", "agent.stallreport", "agent.threads", "agent.wire.events"),
    "agent.healthwatch": ("agent.builder", "agent.capture.camera", "agent.confighealth",
                          "agent.events", "agent.governorrun", "agent.health*", "agent.mqtt",
                          "agent.pipeline.pipeline", "agent.progress", "agent.publish",
                          "agent.sdnotify", "agent.spool"),
    "agent.healthvitals": ("agent.capture.camera", "agent.confighealth", "agent.healthready",
                           "agent.pipeline.pipeline", "agent.progress", "agent.stallrules"),
    "agent.statefolder": ("agent.config",),
    "agent.jetson": ("agent.doctor_host",),
    "agent.governor": (),
    "agent.governorrun": ("agent.configgovernor", "agent.governor", "agent.jetson",
                          "agent.progress", "agent.stallpoint", "agent.threads",
                          "agent.wire.events"),
    "agent.governorengine": ("agent.builder", "agent.errors", "agent.modelslot", "agent.plans",
                             "agent.slotports", "engines.errors"),
    "agent.ratelimit": (),
    "agent.log": ("agent.config", "agent.secrets"),
    # Settings.
    "agent.config": ("agent.config*", "agent.errors"),
    "agent.config?*": ("agent.config*", "agent.errors", "agent.references", "agent.secrets",
                       "agent.yamlfile"),
    "agent.references": ("agent.errors", "agent.yamlfile"),
    "agent.yamlfile": ("agent.errors",),
    # The road of a frame.
    "agent.capture*": ("agent.backoff", "agent.capture*", "agent.config", "agent.errors",
                       "agent.frame", "agent.ratelimit", "agent.secrets", "agent.stallpoint"),
    "agent.vision*": ("agent.detection", "agent.errors", "agent.frame", "agent.vision*",
                      "engines.model"),
    "agent.pipeline*": ("agent.backoff", "agent.capture.base", "agent.detection", "agent.errors",
                        "agent.frame", "agent.interfaces", "agent.pipeline*", "agent.progress",
                        "agent.stallpoint", "agent.threads", "agent.vision*", "engines.*"),
    "agent.picturesource": ("agent.capture.base", "agent.capture.transform", "agent.errors",
                            "engines.errors"),
    "agent.picturechoice": (),
    "agent.calibration": ("agent.picture*", "agent.vision*", "engines.*"),
    "agent.groundtruth": ("agent.calibration", "agent.errors", "agent.vision*", "engines.*"),
    "agent.answers": ("agent.calibration", "agent.detection", "agent.vision*", "engines.*"),
    "agent.gate*": ("agent.answers", "agent.calibration", "agent.config", "agent.detection",
                    "agent.errors", "agent.gate*", "agent.modelsettings", "agent.vision*",
                    "engines.*"),
    "agent.verify*": ("agent.*", "engines.*"),
    "agent.modelsettings": ("agent.config", "agent.errors", "agent.vision*", "engines.*"),
    "agent.plans": ("agent.calibration", "agent.config", "agent.errors", "agent.modelsettings",
                    "engines.*"),
    "agent.building": ("agent.calibration", "agent.gate", "agent.groundtruth", "agent.plans",
                       "engines.*"),
    "agent.buildchild": ("agent.building", "agent.childside", "agent.plans",
                         "engines.backend"),
    "agent.childside": ("agent.errors", "agent.memory", "engines.backend", "engines.errors"),
    "agent.buildprocess": ("agent.servicegroup", "engines.backend", "engines.errors"),
    "agent.builder": ("agent.buildprocess", "agent.modelslot", "agent.progress",
                      "agent.slotports", "agent.stallpoint", "agent.threads", "engines.*"),
    "agent.buildsummary": ("agent.wire.buildstate",),
    "agent.modelslot": ("agent.buildsummary", "agent.device", "agent.errors",
                        "agent.pipeline.worker", "agent.plans", "agent.slot*",
                        "agent.wire.buildstate", "engines.*"),
    "agent.slotnews": ("agent.wire.buildstate", "engines.backend"),
    "agent.slotports": ("agent.buildprocess", "agent.pipeline.worker", "engines.backend",
                        "engines.plan"),
    "agent.slotswitch": ("agent.pipeline.worker", "agent.slotports", "engines.errors"),
    "agent.slotengines": ("agent.models", "agent.pipeline.worker", "agent.plans", "engines.*"),
    "agent.models": ("agent.config", "agent.detection", "agent.errors", "agent.memory",
                     "agent.modelsettings", "agent.pipeline.worker", "agent.plans",
                     "agent.vision*", "engines.*"),
    "agent.wire*": ("agent.detection", "agent.errors", "agent.vision.rle", "agent.wire*"),
    "agent.events": ("agent.wire.events",),
    "agent.news": ("agent.capture.camera", "agent.detection", "agent.wire.events"),
    "agent.spool*": ("agent.config", "agent.errors", "agent.interfaces", "agent.progress",
                     "agent.spool*", "agent.stallpoint", "agent.threads", "agent.wire*"),
    "agent.publish": ("agent.config", "agent.detection", "agent.errors", "agent.interfaces",
                      "agent.outbox", "agent.progress", "agent.ratelimit", "agent.stallpoint",
                      "agent.threads", "agent.wire*"),
    "agent.outbox": ("agent.interfaces",),
    "agent.mqtt*": ("agent.backoff", "agent.config", "agent.errors", "agent.interfaces",
                    "agent.mqtt*", "agent.progress", "agent.secrets", "agent.stallpoint",
                    "agent.threads", "agent.tls", "agent.wire*"),
    "agent.tls": ("agent.config", "agent.errors"),
    # The road of an update. What says whether a bundle may be trusted knows no network and no disk
    # but the one it is told.
    "agent.bundle*": ("agent.bundle*", "agent.config", "agent.errors", "agent.statefolder",
                      "agent.wire*",
                      "engines.durable", "engines.errors", "engines.filelock", "engines.onnxfile"),
    "agent.update": (),
    "agent.update.*": ("agent.bundle*", "agent.config", "agent.errors", "agent.interfaces",
                      "agent.threads", "agent.update*", "agent.wire*", "engines.durable",
                      "engines.backend", "engines.errors", "engines.filelock"),
    # The shells that fetch, prove and put everything together.
    "agent.update.fetch*": ("agent.backoff", "agent.bundle*", "agent.config", "agent.errors",
                            "agent.mqtt*", "agent.threads", "agent.update*", "agent.wire*"),
    "agent.update.proof*": ("agent.*", "engines.*"),
    "agent.update.trial*": ("agent.*", "engines.*"),
    "agent.update.shadow": ("agent.*", "engines.*"),
    "agent.update.likeness": ("agent.detection", "agent.vision.agreement"),
    "agent.update.updater": ("agent.*", "engines.*"),
    "agent.update.installed": ("agent.*", "engines.*"),
    "agent.enrol*": ("agent.*", "engines.*"),
    "agent.updates": ("agent.*", "engines.*"),
    "agent.updatereceiver": ("agent.*", "engines.*"),
    # The systemd service.
    "agent.service": ("agent.errors", "agent.service*"),
    "agent.servicegroup": (),
    "agent.servicelayout": ("agent.errors",),
    "agent.servicemanager": ("agent.errors", "agent.servicelayout"),
    # Texts for people.
    "agent.enginereport": ("agent.plans",),
    "agent.modelreport": ("engines.base", "engines.model"),
    "agent.resulttext": ("agent.detection", "agent.wire*"),
    "agent.watch": ("agent.errors", "agent.wire*"),
    # The HTTP side knows values; one module knows the parts that they come from.
    "agent.http": (),
    "agent.http.ports": ("agent.detection", "agent.frame", "agent.pipeline.stats"),
    "agent.http.*": ("agent.config*", "agent.detection", "agent.frame", "agent.http*",
                     "agent.pipeline.stats", "agent.pipeline.tap", "agent.progress",
                     "agent.stallpoint", "agent.vision.draw"),
    "agent.http.parts": ("agent.*",),
    # What puts parts together may know all of them, but not the command line.
    "agent.check": ("agent.*", "engines.*"),
    "agent.deep*": ("agent.*",),
    "agent.askagent": ("agent.confighttp", "agent.errors"),
    "agent.loglines": (),
    "agent.redact": ("agent.secrets",),
    "agent.supportbundle": ("agent.errors", "agent.redact"),
    "agent.supportparts": ("agent.*",),
    "agent.deepmachine": (),
    "agent.deepmatrix": ("agent.check",),
    "agent.daemon": ("agent.*", "engines.*"),
    "agent.ending": ("agent.*",),
    "agent.signals": ("agent.healthwatch", "agent.reload"),
    "agent.tasks": ("agent.progress", "agent.stallpoint"),
    "agent.reloadplan": ("agent.config",),
    "agent.lastgood": ("agent.config", "agent.configfile", "agent.errors", "agent.statefolder",
                       "engines.durable"),
    "agent.reload": ("agent.bundle.documents", "agent.config", "agent.configfile",
                     "agent.desired", "agent.errors", "agent.lastgood", "agent.news",
                     "agent.progress", "agent.reloadplan", "agent.wire.configstate",
                     "engines.errors"),
    "agent.desired": ("agent.bundle.documents", "agent.bundle.dsse", "agent.bundle.strict",
                      "agent.errors", "agent.lastgood", "agent.wire.configstate",
                      "engines.durable"),
    "agent.desiredapply": ("agent.bundle.documents", "agent.desired", "agent.threads"),
    "agent.startconfig": ("agent.config", "agent.configfile", "agent.desired", "agent.errors",
                          "agent.lastgood"),
    "agent.hotchanges": ("agent.builder", "agent.config", "agent.errors", "agent.modelslot",
                         "agent.pipeline.pipeline"),
    "agent.figures": ("agent.device", "agent.governorrun", "agent.mqtt", "agent.pipeline.pipeline",
                      "agent.publish", "agent.spool", "agent.updates", "agent.wire*"),
    "agent.herald": ("agent.capture.camera", "agent.detection", "agent.device", "agent.mqtt",
                     "agent.versions", "agent.wire*"),
    "agent.detect": ("agent.*", "engines.*"),
    "agent.benchmark": ("agent.*", "engines.*"),
    "agent.engine?*": ("agent.*", "engines.*"),
    "agent.doctor*": ("agent.*", "engines.*"),
    "agent.collect*": ("agent.*", "engines.*"),
    "agent.demo*": ("agent.*", "engines.*"),
    "agent.commands*": ("agent.*", "engines.*"),
    "agent.cli": ("agent.*", "engines.*"),
    "agent.__main__": ("agent.cli",),
    # The operator's side shares the protocol with the device, nothing else.
    "fleet": (),
    "fleet.*": ("fleet.*", "agent.wire*", "agent.bundle*", "agent.backoff", "agent.config",
                "agent.configfile", "agent.mqtt*", "agent.tls", "agent.errors", "agent.interfaces",
                "agent.threads", "agent.update.offer", "agent.update.ports",
                "agent.update.transfer", "engines.durable", "engines.filelock"),
    "fleet.commands*": ("fleet.*", "agent.wire*", "agent.bundle*", "agent.config",
                        "agent.configfile", "agent.errors", "agent.commands.output",
                        "agent.commands.progress", "engines.durable"),
    "agent.commands.fleet": ("fleet.commands*",),
}  # fmt: skip

# Nobody but these imports the command line.
COMMAND_LINE = ("agent.cli", "agent.commands*", "agent.__main__", "fleet.commands*")

# Library -> who may import it. A library that is not here is an error.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "anyio": ("agent.daemon", "agent.signals", "agent.tasks", "fleet.simulate*"),
    "cryptography": ("agent.bundle*", "agent.enrol*", "engines.seal", "fleet.*"),
    "pkcs11": ("agent.bundle.pkcs11*",),
    "securesystemslib": ("agent.bundle*", "agent.update.offer", "agent.update.orders", "fleet.*"),
    "sqlalchemy": ("fleet.*",),
    "tuf": ("agent.bundle*", "fleet.*"),
    "prometheus_client": ("agent.http.metric*", "agent.http.numbers"),
    "starlette": ("agent.http.*",),
    "uvicorn": ("agent.http.server",),
    "cv2": ("agent.http.live",
            "agent.capture*", "agent.vision*", "agent.commands*", "agent.detect", "agent.daemon",
            "agent.calibration", "agent.collect*", "agent.demo*", "agent.enginepictures",
            "agent.picturesource"),
    "google": ("engines.onnxfile",),
    "numpy": ("agent.*", "engines.*"),
    "onnx": ("engines.*", "agent.plans", "agent.verifyfaults"),
    "matplotlib": ("agent.engineplot",),
    "onnxruntime": ("engines.calibrate", "engines.ort*", "engines.sensitivity"),
    "openvino": ("engines.openvino*",),
    "paho": ("agent.mqtt*", "fleet.simulate*"),
    "psutil": ("agent.device", "agent.benchmark", "agent.buildprocess", "agent.update.proof*",
               "agent.update.memory*", "agent.update.trial*"),
    "pycuda": ("engines.trt*",),
    "pydantic": ("agent.bundle*", "agent.config*", "agent.redact", "fleet.*",
                 "agent.update.fallback", "agent.update.requests"),
    "pydantic_core": ("agent.config*",),
    "rich": ("agent.commands*", "fleet.commands*", "agent.demo*", "agent.enginereport"),
    "structlog": ("agent.log",),
    "tensorrt": ("engines.trt*",),
    "typer": ("agent.cli", "agent.commands*", "fleet.commands*"),
    "typing_extensions": ("agent.*", "engines.*", "fleet.*"),
    "yaml": ("agent.yamlfile", "agent.commands.config"),
}  # fmt: skip


def violations(root):
    """Sentences, one for each import that no rule allows."""
    files = {_name(path, root): path for p in PACKAGES for path in root.glob(f"{p}/**/*.py")}
    return [
        fault
        for module, path in sorted(files.items())
        for imported in sorted(_imports(module, path, files))
        if (fault := _fault(module, imported))
    ]


def _name(path, root):
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(module, path, files):
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            # `from agent.capture import csi` imports a module, `from agent import __version__` not.
            names = [f"{base}.{alias.name}" for alias in node.names]
            yield from (name if name in files else base for name in names)


def _fault(module, imported):
    top = imported.partition(".")[0]
    if top in sys.stdlib_module_names:
        return None
    if top in PACKAGES:
        return _project_fault(module, imported)
    if top not in LIBRARIES:
        return f"{module} imports {top}, a library without a rule"
    return None if _fits(module, LIBRARIES[top]) else f"{module} may not import {top}"


def _project_fault(module, imported):
    rules = [pattern for pattern in PROJECT if fnmatch.fnmatchcase(module, pattern)]
    if not rules:
        return f"{module} has no rule"
    allowed = PROJECT[max(rules, key=len)]
    if _fits(imported, COMMAND_LINE) and not _fits(module, COMMAND_LINE):
        return f"{module} may not import {imported}"
    # A package's own `__init__` holds no more than its version.
    if imported in PACKAGES or _fits(imported, allowed):
        return None
    return f"{module} may not import {imported}"


def _fits(name, patterns):
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def test_source_keeps_the_rules():
    assert violations(ROOT) == []


def test_every_module_has_a_rule():
    modules = [_name(path, ROOT) for p in PACKAGES for path in ROOT.glob(f"{p}/**/*.py")]
    assert len(modules) > 50
    assert [m for m in modules if not _fits(m, PROJECT)] == []


@pytest.mark.parametrize(
    ("path", "line", "fault"),
    [
        ("engines/a.py", "import agent.frame", "engines.a may not import agent.frame"),
        ("engines/a.py", "import onnxruntime", "engines.a may not import onnxruntime"),
        ("engines/a.py", "import tensorrt", "engines.a may not import tensorrt"),
        ("engines/ort.py", "from engines import race", "engines.ort may not import engines.race"),
        ("agent/vision/a.py", "import agent.config", "agent.vision.a may not import agent.config"),
        ("agent/vision/a.py", "import engines.ort", "agent.vision.a may not import engines.ort"),
        (
            "agent/capture/a.py",
            "from agent.vision import nms",
            "agent.capture.a may not import agent.vision",
        ),
        (
            "agent/capture/a.py",
            "from ..pipeline.order import x",
            "agent.capture.a may not import agent.pipeline.order",
        ),
        ("agent/publish.py", "from paho.mqtt import client", "agent.publish may not import paho"),
        ("agent/wire/a.py", "import cv2", "agent.wire.a may not import cv2"),
        ("agent/daemon.py", "import agent.cli", "agent.daemon may not import agent.cli"),
        ("fleet/a.py", "import agent.daemon", "fleet.a may not import agent.daemon"),
        ("agent/daemon.py", "import requests", "agent.daemon imports requests, a library without"),
        ("agent/unheard.py", "import agent.frame", "agent.unheard has no rule"),
        (
            "agent/wire/a.py",
            "def f():\n    if True:\n        from agent import daemon",
            "agent.wire.a may not import agent.daemon",
        ),
    ],
)
def test_violation_is_found(tmp_path, path, line, fault):
    for stub in ("agent/daemon.py", "engines/race.py"):
        (tmp_path / stub).parent.mkdir(exist_ok=True)
        (tmp_path / stub).write_text("")
    place = tmp_path / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(line + "\n")
    (found,) = violations(tmp_path)
    assert found.startswith(fault)
