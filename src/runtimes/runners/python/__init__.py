"""What runs inside a process sandbox: the launcher (fork server), the sandbox it builds, and the Python runner.

Loaded as the package `gitfaas_runner`, so that a function's own modules may have any name. Standard library only,
Python 3.8 and later.
"""
