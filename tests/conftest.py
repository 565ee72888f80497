"""What tests share: the built site, a browser without a network, and bad days."""

import functools
import gzip
import http.server
import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

TREE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TREE / "book" / "_ext"))
# What `make test` leaves to `make test-all`.
NIGHTLY = pytest.mark.nightly
# Files that take a minute or more. They start first, so that two workers end together.
LONG = ["test_sweep", "test_site", "test_notebooks", "test_pages", "test_widget"]
PATIENCE = 600_000  # milliseconds that a browser may take for anything
# What the site is served under here: its own files and data in the page, nothing else.
POLICY = "default-src 'self' data:"
# The policy's refusals are kept where a test finds them.
REFUSALS = """window.refused = [];
addEventListener("securitypolicyviolation", (event) => refused.push(
  `${event.effectiveDirective} of ${event.sourceFile}:${event.lineNumber}`));"""
# Ends transitions. A sheet that a script makes is no inline style.
STILL = """() => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync("* { transition: none !important }");
  document.adoptedStyleSheets.push(sheet);
}"""
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


# A busy machine takes long over an example, and that is no fault.
settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    """Say which marks there are."""
    config.addinivalue_line("markers", "nightly: only `make test-all` runs it")
    config.addinivalue_line("markers", "browser: it needs a Chromium")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a browser, and put the long files first."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")

    def place(item: pytest.Item) -> int:
        if item.path.suffix == ".ipynb":
            return len(LONG)
        return LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG) + 1

    items.sort(key=place)


def tool(name: str) -> ModuleType:
    """A script of tools/, as a module of its own name (`site` is taken by Python)."""
    file = TREE / "tools" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"tools_{name}", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sample(names: list[Any]) -> list[Any]:
    """Parameters of which `make test` takes the first and `make test-all` every one."""
    first, *others = names
    return [first, *(pytest.param(name, marks=NIGHTLY) for name in others)]


class Gzip(http.server.SimpleHTTPRequestHandler):
    """Serve files as a careful web server does: text compressed, under the policy."""

    def do_GET(self) -> None:
        """Answer one request; its weight goes into the server's log."""
        file = Path(self.translate_path(self.path))
        if not file.is_file():
            return self.send_error(404)
        body = file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(file)))
        self.send_header("Content-Security-Policy", POLICY)
        if file.suffix not in {".woff", ".woff2", ".png"}:
            body = _packed(file, file.stat().st_mtime)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        return None

    def log_message(self, *words: Any) -> None:
        """Say nothing."""


@functools.cache
def _packed(file: Path, changed: float) -> bytes:
    return gzip.compress(file.read_bytes(), 6)


@pytest.fixture(scope="session")
def built() -> Path:
    """The folder of the built site; built now if it is missing or stale."""
    from filelock import FileLock

    site = tool("site")
    (TREE / "_build").mkdir(exist_ok=True)
    with FileLock(TREE / "_build" / "site.lock"):
        if not site.fresh():
            site.build()
    return TREE / "_build" / "html"


@pytest.fixture(scope="session")
def site(built: Path) -> Iterator[str]:
    """The address of the built site on this machine."""
    serve = functools.partial(Gzip, directory=str(built))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    path = tool("browser").chromium()
    if path is None:
        pytest.fail("no Chromium was found: install it, or run `make test`.")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A tab that reaches this machine only; asking for more fails the test."""
    tab = open_tab(browser)
    yield tab.page
    tab.page.context.close()
    assert tab.foreign == []


def open_tab(browser: Any, **options: Any) -> SimpleNamespace:
    """A tab in a context of its own.

    Returns:
        page; foreign, the requests to other hosts, which are refused; errors, all
        that the console was told and the page complained about.
    """
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE)
    tab = SimpleNamespace(page=None, foreign=[], errors=[])

    def only_here(route: Any) -> None:
        url = route.request.url
        if url.startswith(("http://127.0.0.1:", "file:", "data:", "blob:")):
            route.continue_()
        else:
            tab.foreign.append(url)
            route.abort()

    context.route("**/*", only_here)
    context.add_init_script(REFUSALS)
    tab.page = context.new_page()
    tab.page.on("console", lambda message: tab.errors.append(message.text))
    tab.page.on("pageerror", lambda error: tab.errors.append(str(error)))
    return tab


@pytest.fixture
def full_disk(tmp_path):
    """A folder that holds 64 KiB: a tiny file system, else a limit on file sizes."""
    folder = tmp_path / "full"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if mounted:
        yield folder
        subprocess.run(["umount", str(folder)], check=True)
        return
    import resource
    import signal

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, hard))
    yield folder
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def locked_folder(tmp_path):
    """A folder that this process may not enter; root becomes nobody for the test."""
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    folder.chmod(0o700)
