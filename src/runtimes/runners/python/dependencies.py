"""Installed packages on the module path of a function."""
from os import listdir
import sys

from .loading import InitFailed, describe


def add_dependencies(directory: str) -> None:
    """Last on the path: the function's own files come first, then the standard library, as in every installation of Python. Files of
    the kind `.pth` count, since some packages need theirs; what they run runs in the sandbox, like the packages themselves. Raises
    InitFailed.
    """
    if not directory:
        return
    # Looked up before it was mounted, it would stay absent.
    sys.path_importer_cache.pop(directory, None)
    try:
        if any(name.endswith(".pth") for name in listdir(directory)):
            import site

            site.addsitedir(directory)
        else:
            sys.path.append(directory)
    except BaseException as error:
        raise InitFailed("import_error", f"the dependencies cannot be used: {describe(error)}", type(error).__name__) from error
