"""Checks handlers before anything of them runs: does each file compile, and does its top level name the callable?

    python3 -I -S -B -X utf8 check_source.py

Frames on standard input, each `u32 length` + that many bytes: for every handler a JSON object `{"callable": name}` and
the file's bytes. For each, in order, one line of JSON on standard output: `null` when nothing is wrong, else
`{"line": n, "column": n, "message": text}`, both counted from 1. Nothing that is read is executed.

Does not block: a file that makes the compiler crash ends this process; the daemon sees which file had no answer.
"""
import ast
import json
import resource
import struct
import sys
import warnings
from typing import Dict, Iterator, List, Optional, Union

_MEMORY_BYTES = 1 << 30
_CPU_S = 10

Problem = Dict[str, Union[int, str]]


def check(code: bytes, callable_name: str) -> Optional[Problem]:
    """The first problem of one file. Without a name only faults of syntax count."""
    if b"\0" in code:
        before = code[: code.index(b"\0")]
        line = before.count(b"\n") + 1
        return _problem(line, len(before) - before.rfind(b"\n"), "the file holds a null byte")
    try:
        tree = ast.parse(code, "handler", "exec")
        # Some errors are only seen by the compiler proper: `return` outside a function, a `nonlocal` at the top.
        compile(tree, "handler", "exec", dont_inherit=True)
    except SyntaxError as error:
        kind = "" if type(error) is SyntaxError else f"{type(error).__name__}: "
        return _problem(error.lineno or 1, error.offset or 1, kind + (error.msg or "invalid syntax"))
    except (RecursionError, MemoryError):
        return _problem(1, 1, "the code is nested too deeply to be compiled")
    except (ValueError, UnicodeError) as error:
        return _problem(1, 1, f"the file cannot be compiled: {error}")
    if callable_name == "" or _names(tree.body, callable_name):
        return None
    return _problem(1, 1, f"there is no `{callable_name}` at the top level of the file")


def _problem(line: int, column: int, message: str) -> Problem:
    return {"line": max(1, line), "column": max(1, column), "message": message}


def _names(body: List[ast.stmt], name: str) -> bool:
    """Whether running these statements may give the module this name. Unknowable counts as yes: the start will tell."""
    return any(_gives(statement, name) for statement in body)


def _gives(statement: ast.stmt, name: str) -> bool:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return statement.name == name
    if isinstance(statement, ast.Import):
        return any((alias.asname or alias.name.split(".")[0]) == name for alias in statement.names)
    if isinstance(statement, ast.ImportFrom):
        return any(alias.name == "*" or (alias.asname or alias.name) == name for alias in statement.names)
    # Assignments of every shape, `with … as`, `for`, `:=`, `match` captures: wherever the name is bound in this scope.
    return any(_binds(node, name) for node in _scope(statement))


def _scope(statement: ast.AST) -> Iterator[ast.AST]:
    """The statement and what is in it, without the insides of functions and classes, which bind in their own scope."""
    pending = [statement]
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            pending.extend(ast.iter_child_nodes(node))


def _binds(node: ast.AST, name: str) -> bool:
    if isinstance(node, ast.Name):
        # `globals()[…] = …` and `exec` can bind anything.
        return (node.id == name and isinstance(node.ctx, ast.Store)) or node.id in ("exec", "globals")
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)):
        return _gives(node, name)
    # `except … as name` and the captures of `match`, which has its own node kinds since 3.10.
    return getattr(node, "name", None) == name or getattr(node, "rest", None) == name


def _read(size: int) -> bytes:
    data = sys.stdin.buffer.read(size)
    if len(data) != size:
        sys.exit(0)
    return data


def _read_frame() -> bytes:
    return _read(struct.unpack(">I", _read(4))[0])


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    # A file's own `\d` in a plain string is its author's business.
    warnings.simplefilter("ignore")
    while True:
        request = json.loads(_read_frame())
        problem = check(_read_frame(), request["callable"])
        sys.stdout.write(json.dumps(problem) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
