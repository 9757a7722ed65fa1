"""What every instance has in memory already, shared with the launcher: common modules of the standard library."""
import importlib
import os
import sys
from typing import List

#: Asked for by many functions, and slow to import. Nothing that starts a thread, opens a descriptor or holds keys
#: (multiprocessing has an authkey, which all instances would share).
_MODULES = """
argparse array ast asyncio base64 binascii bisect collections collections.abc concurrent.futures contextlib copy csv datetime decimal
difflib email.message email.utils enum errno fnmatch fractions functools glob gzip hashlib heapq hmac html http.client
http.cookies inspect io ipaddress itertools json linecache logging math mimetypes numbers operator os.path pathlib pickle
platform pprint queue random re secrets shlex shutil signal socket ssl stat statistics string struct subprocess tempfile
textwrap threading time traceback types typing unicodedata urllib.error urllib.parse urllib.request uuid warnings weakref
xml.etree.ElementTree zipfile zlib zoneinfo
""".split()


EXIT_PRELOAD_FAILED = 78


class PreloadFailed(Exception):
    pass


def preload_or_exit() -> None:
    try:
        preload()
    except PreloadFailed as error:
        print(f"launcher: {error}", file=sys.stderr, flush=True)
        sys.exit(EXIT_PRELOAD_FAILED)


def preload() -> None:
    """Imports them all. Raises PreloadFailed that names the module."""
    before = _open_descriptors()
    for name in _MODULES:
        try:
            importlib.import_module(name)
        except ImportError:
            continue  # Newer than this interpreter, or a distribution's package of its own.
        if thread_count() != 1:
            raise PreloadFailed(f"importing {name} starts a thread: a fork would copy its locks without it")
    if _open_descriptors() != before:
        raise PreloadFailed("importing the standard library left a descriptor open, which all instances would share")


def _open_descriptors() -> List[str]:
    return os.listdir("/proc/self/fd")


def thread_count() -> int:
    return len(os.listdir("/proc/self/task"))

