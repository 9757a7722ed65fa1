"""What an installer's sandbox runs in place of a function. Alone in its directory, so that it imports nothing of ours.

Gets an order as JSON and answers with one JSON object a line: `{"line": …}` for each line that the installer prints, and at last
`{"end": …}`. Whoever reads it believes none of it: packages that build themselves run beside this.
"""
import compileall
import json
import os
import py_compile
import re
import shutil
import ssl
import subprocess
from typing import Any, Dict, Iterator, List, Optional
import urllib.error
import urllib.parse
import urllib.request

#: Runs the pip of this interpreter, or one of the copies that Python and Debian keep for making virtual environments.
_START_PIP = """
import glob, os, runpy, sys
try:
    import pip
except ImportError:
    import ensurepip
    places = [os.path.join(os.path.dirname(ensurepip.__file__), "_bundled"), "/usr/share/python-wheels"]
    wheels = [path for place in places for path in sorted(glob.glob(place + "/pip-*.whl"))]
    if not wheels:
        sys.exit(64)
    sys.path.insert(0, wheels[-1])
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
_EXIT_NO_PIP = 64
_LINE_MAX_BYTES = 2000
_PROBE_TIMEOUT_S = 10
_INSTALLED_MAX = 5000
_DISTRIBUTION = re.compile(r"^(.+)-([^-]+)\.dist-info$")


def handle(request: Any) -> Iterator[bytes]:
    return _install(request.get_json())


def _install(order: Dict[str, Any]) -> Iterator[bytes]:
    project = os.path.join(order["directory"], "home")
    target = os.path.join(order["directory"], "target")
    for path in (project, os.path.join(order["directory"], "tmp")):
        os.mkdir(path)
    for name in order["project"]:
        shutil.copyfile(name, os.path.join(project, name))
    command: List[str] = order["command"]
    if order["tool"] == "pip":
        command = [order["python"], "-I", "-c", _START_PIP, *command]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=order["environment"],
        cwd=project, start_new_session=True,
    )
    assert process.stdout is not None
    while True:
        line = process.stdout.readline(_LINE_MAX_BYTES)
        if not line:
            break
        text = line.decode("utf-8", "replace").rstrip()
        if text:
            yield _event({"line": text})
    code = process.wait()
    end: Dict[str, Any] = {"code": code, "has_tool": not (order["tool"] == "pip" and code == _EXIT_NO_PIP)}
    if code == 0:
        if order["project"] and os.path.isdir(os.path.join(project, "node_modules")):
            os.rename(os.path.join(project, "node_modules"), target)
            # So that packages find each other by that name wherever this directory is shown.
            os.symlink(".", os.path.join(target, "node_modules"))
        os.makedirs(target, exist_ok=True)
        if order["compile_as"]:
            _compile(target, order["compile_as"])
        end["installed"] = _installed(target)
    else:
        end["probes"] = [_probe(probe, order["environment"]) for probe in order["probes"]]
    yield _event({"end": end})


def _event(event: Dict[str, Any]) -> bytes:
    return json.dumps(event).encode() + b"\n"


def _compile(target: str, shown_as: str) -> None:
    """Nobody can write the compiled files later. Not checked against their sources either: neither ever changes. A file that cannot be
    compiled is one that cannot be imported; packages do bring such."""
    compileall.compile_dir(
        target, ddir=shown_as, quiet=2, force=True, workers=1, maxlevels=40,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def _installed(target: str) -> List[List[str]]:
    matches = (_DISTRIBUTION.match(name) for name in sorted(os.listdir(target)))
    return [[match.group(1), match.group(2)] for match in matches if match][:_INSTALLED_MAX]


def _probe(probe: Dict[str, Any], environment: Dict[str, str]) -> Dict[str, Any]:
    """Whether the index answers at all for a package: what the installer says is the same for a missing package and a missing index."""
    parts = urllib.parse.urlsplit(probe["url"])
    request = urllib.request.Request(urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))
    if parts.username is not None:
        manager = urllib.request.HTTPPasswordMgrWithPriorAuth()
        manager.add_password(
            None, request.full_url, urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or ""), is_authenticated=True
        )
        authentication: List[Any] = [urllib.request.HTTPBasicAuthHandler(manager)]
    else:
        authentication = []
    try:
        os.environ.update({name: value for name, value in environment.items() if name.lower().endswith("_proxy")})
        context = ssl.create_default_context(cafile=environment.get("SSL_CERT_FILE"))
        if probe["is_trusted"]:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), *authentication)
        with opener.open(request, timeout=_PROBE_TIMEOUT_S) as answer:
            return {"status": answer.status}
    except urllib.error.HTTPError as error:
        return {"status": error.code}
    except Exception as error:
        reason: Optional[object] = getattr(error, "reason", None)
        return {"error": str(reason or error)[:300]}
