"""The fork server: one per interpreter, started by the daemon with an empty environment as

    python3 -I -S -B -X utf8 launcher.py

Descriptor 0 is the control connection (docs/PROTOCOL.md). Single-threaded, never runs a function's code, ignores INT and
TERM: only the daemon decides. At the end of the control connection it kills its instances, waits for them and leaves.

The order of the imports below matters: `layout.py` says why.
"""
import importlib.util
import os
import sys

_NAME = "gitfaas_runner"


def _load_package() -> None:
    """Under a name of its own: a function's modules may be called `request` or `answer`."""
    directory = os.path.dirname(os.path.abspath(__file__))
    path = os.path.join(directory, "__init__.py")
    spec = importlib.util.spec_from_file_location(_NAME, path, submodule_search_locations=[directory])
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    _load_package()
    from gitfaas_runner import fork_hooks

    # What every function finds in its environment; nothing of ours.
    os.environ.clear()
    os.environ.update(PATH="/usr/local/bin:/usr/bin:/bin", HOME="/tmp", TMPDIR="/tmp", LANG="C.UTF-8")
    fork_hooks.hold()
    from gitfaas_runner import layout

    finder = layout.load_code(_NAME, os.path.dirname(os.path.abspath(__file__)))
    from gitfaas_runner import preload

    preload.preload_or_exit()
    layout.fill_holes()
    from gitfaas_runner.fork_server import main

    sys.meta_path.remove(finder)
    main()
