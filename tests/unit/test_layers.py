"""The five layers of the design, held by reading every import of the package."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "recognizer"

LAYERS = [
    {"client"},  # it goes into other people's programs, and takes nothing of the service along
    {
        "errors",
        "faces",
        "evidence",
        "config",
        "deadline",
        "logs",
        "metrics",
        "networks",
        "keyring",
        "moments",
        "partial_file",
    },
    {"vision", "gallery"},
    {
        "decisions",
        "admission",
        "scene",
        "news",
        "calibration",
        "service",
        "batch",
        "moving",
        "person_export",
        "re_embedding",
        "comparing",
        "vitals",
        "runtime",
    },
    {"api", "app"},
    {
        "host",
        "postgres",
        "installation",
        "reloading",
        "supervisor",
        "check",
        "audit_command",
        "calibrate_command",
        "encryption_command",
        "re_embed_command",
        "retention_command",
        "transfer_command",
        "import_anew",
        "enrolling",
        "enroll_command",
        "backup_command",
        "backup_file",
        "scrub_command",
        "options",
        "spreadsheets",
        "servers",
        "cli",
        "__main__",
    },
]
ROOMS = {
    "PIL": {"vision.images"},
    "cryptography": {"keyring"},
    "dlib": {"vision"},
    "onnx": {"vision.onnx_graph", "vision.mmod_graph"},
    "onnxruntime": {"vision.sessions"},
    "face_recognition": {"vision.reference"},
    "psycopg2": {"gallery"},
    "pgvector": {"gallery"},
    "flask": {"api", "app", "servers.development", "servers.windows"},
    "werkzeug": {"api", "app", "servers.development"},
    "gunicorn": {"servers.linux", "servers.arrival", "servers.reception", "servers.worker", "servers.master"},
    "apispec": {"api.openapi"},
    "apispec_webframeworks": {"api.openapi"},
    "flask_cors": {"api.exposure"},
    "flask_limiter": {"api.exposure"},
    "limits": {"networks"},
    "waitress": {"servers.windows", "servers.waitress_channel"},
    "click": {
        "backup_command",
        "calibrate_command",
        "enroll_command",
        "enrolling.progress",
        "audit_command",
        "retention_command",
        "scrub_command",
        "transfer_command",
        "options",
        "cli",
        "supervisor",
        "re_embed_command",
        "encryption_command",
    },
    "tqdm": {"enrolling.progress", "transfer_command", "encryption_command", "backup_command"},
    "prometheus_client": {"metrics", "api.ops"},
    "pythonjsonlogger": {"logs"},
    "matplotlib": {"calibration.picture"},
    "scipy": {"decisions", "scene"},
    "httpx": {"client"},
}
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
    if path != PACKAGE / "__init__.py"
}


def imports(path: Path) -> set[str]:
    """Every module that a file names in an import, late ones included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the layer"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_imports(module: str) -> set[str]:
    """The modules of the package that a module imports."""
    names = {name.removeprefix("recognizer.") for name in imports(MODULES[module]) if name.startswith("recognizer.")}
    return {name if name in MODULES else name.rpartition(".")[0] for name in names} - {""}


def layer(module: str) -> int:
    top = module.split(".")[0]
    return next(number for number, names in enumerate(LAYERS) if top in names)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_its_own_layer_or_lower_ones(module: str) -> None:
    for imported in own_imports(module):
        assert layer(imported) <= layer(module), f"{module} imports {imported} from a higher layer"
        halves = {module.split(".")[0], imported.split(".")[0]}
        assert halves != {"vision", "gallery"}, f"{module} imports {imported} from the other half"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_library_stays_in_its_room(module: str) -> None:
    for name in imports(MODULES[module]):
        room = ROOMS.get(name.split(".")[0])
        allowed = room is None or module in room or module.split(".")[0] in room
        assert allowed, f"{module} imports {name}, whose room is {room}"


def test_no_import_goes_in_a_circle() -> None:
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join([*way, module])
        if module not in done:
            for imported in own_imports(module):
                visit(imported, (*way, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())
