"""`signalpost topics`: what can be subscribed to, and what a body looks like."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from webhooks.cli.showing import laid_out

if TYPE_CHECKING:
    from webhooks.cli.showing import Out
    from webhooks.cli.site import Site


def show(site: Site, out: Out, name: str | None) -> int:
    if name is None:
        _all(site, out)
    else:
        _one(site, out, name)
    return 0


def _all(site: Site, out: Out) -> None:
    rows = list(site.all("topics/"))
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        out.line(f"{row['name']:<{width}}  {row['description']}".rstrip(), **row)


def _one(site: Site, out: Out, name: str) -> None:
    row = site.get(f"topics/{quote(name, safe='')}/")
    if out.as_json:
        out.line("", **row)
        return
    out.line(f"{row['name']}  {row['description']}".rstrip())
    for title, part in (("JSON Schema", row["schema"]), ("Sample", row.get("sample"))):
        if part is not None:
            out.block(f"\n{title}\n{laid_out(part)}")
