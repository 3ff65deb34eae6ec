"""How many files and connections this process may have open."""

import resource


def raise_open_files() -> None:
    """Allow as many open files as the system lets this process have.

    Container engines start processes with 1024, for the sake of programs that use `select`, and allow far more.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
