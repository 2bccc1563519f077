"""`python -m tests.e2e`: the pages in a real browser, on the running stack.

Chromium is CHROMIUM, or the one on PATH. Arguments go to pytest. Screenshots
of every page and state go to var/screenshots/, which git ignores.
"""

from __future__ import annotations

import os
import shutil
import sys
import time

from tests.__main__ import run

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str | None:
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def main() -> int:
    started = time.monotonic()
    found = chromium()
    if found is None:
        print("There is no Chromium; on Debian: apt install chromium. CHROMIUM names another.")
        return 1
    # Playwright's thread runs an event loop of its own, beside which the ORM is asked nothing concurrent.
    extra = {"CHROMIUM": found, "DJANGO_ALLOW_ASYNC_UNSAFE": "1"}
    code = run("The pages in a browser", ["--dist", "loadfile", "tests/e2e", *sys.argv[1:]], extra)
    print(f"\n{'passed' if code == 0 else 'FAILED'} in {time.monotonic() - started:.0f} s")
    return code


if __name__ == "__main__":
    sys.exit(main())
