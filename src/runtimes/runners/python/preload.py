"""What every instance has in memory already, shared with the launcher: common modules of the standard library."""
import gc
import importlib
import os

from . import kernel

#: Asked for by many functions, and slow to import. Nothing that starts a thread, opens a descriptor or holds keys
#: (multiprocessing has an authkey, which all instances would share).
_MODULES = """
argparse array ast base64 binascii bisect collections collections.abc concurrent.futures contextlib copy csv datetime decimal
difflib email.message email.utils enum errno fnmatch fractions functools glob gzip hashlib heapq hmac html http.client
http.cookies inspect io ipaddress itertools json linecache logging math mimetypes numbers operator os.path pathlib pickle
platform pprint queue random re secrets shlex shutil signal socket ssl stat statistics string struct subprocess tempfile
textwrap threading time traceback types typing unicodedata urllib.error urllib.parse urllib.request uuid warnings weakref
xml.etree.ElementTree zipfile zlib zoneinfo
""".split()


class PreloadFailed(Exception):
    pass


def preload() -> int:
    """Imports them all and gives the number of threads, which is 1. Raises PreloadFailed that names the module."""
    before = kernel.open_descriptors()
    for name in _MODULES:
        try:
            importlib.import_module(name)
        except ImportError:
            continue  # Newer than this interpreter, or a distribution's package of its own.
        if thread_count() != 1:
            raise PreloadFailed(f"importing {name} starts a thread: a fork would copy its locks without it")
    if kernel.open_descriptors() != before:
        raise PreloadFailed("importing the standard library left a descriptor open, which all instances would share")
    return thread_count()


def settle_memory() -> None:
    """Last thing before serving: a collection in a child would write to every object's header and so copy its page."""
    gc.disable()
    gc.collect()
    gc.freeze()


def thread_count() -> int:
    return len(os.listdir("/proc/self/task"))

