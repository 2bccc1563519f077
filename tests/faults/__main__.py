"""`python -m tests.faults`: every fault on SQLite, then, where PostgreSQL
answers, on it. Arguments go to pytest.

Redis is a Valkey of each test's own, since it is killed, wiped and filled.
PostgreSQL is DATABASE_URL, or 127.0.0.1:5432 if that lets `postgres` in; each
test has a database of its own there. What is done to a whole server is done
to one that the suite starts itself, where it finds initdb.
"""

from __future__ import annotations

import sys
import time

from tests.__main__ import NO_TESTS, postgresql, run

# Beside the two cores' work much is waiting: for leases, retries and starts.
TWICE = ["-n", "4", "--dist", "worksteal"]


def main() -> int:
    started = time.monotonic()
    arguments = [*TWICE, "tests/faults", *sys.argv[1:]]
    code = run("Faults on SQLite", arguments, {})
    database = postgresql()
    if database is None:
        print("\nPostgreSQL does not answer; its round is left out (DATABASE_URL names another)")
    elif code in {0, NO_TESTS}:
        again = run("Faults on PostgreSQL", arguments, {"DATABASE_URL": database, "SECRET_KEY": "tests"})
        code = min(code, again) if NO_TESTS in {code, again} else again
    print(f"\n{'passed' if code == 0 else 'FAILED'} in {time.monotonic() - started:.0f} s")
    return code


if __name__ == "__main__":
    sys.exit(main())
