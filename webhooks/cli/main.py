"""The command line: what may be written, and how it ends.

0: done, or stopped by Ctrl-C. 1: the site said no, or something failed.
2: written wrongly. 3: the site cannot be reached.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from webhooks import __version__
from webhooks.cli import AWAY, DONE, FAILED, listening, replaying, tailing, topics
from webhooks.cli.showing import Out, ReaderGoneError
from webhooks.cli.site import AwayError, RefusedError, Site, is_address

if TYPE_CHECKING:
    from collections.abc import Sequence

KEY, URL = "SIGNALPOST_API_KEY", "SIGNALPOST_URL"
INTERRUPTED = 130
STATUSES = ("pending", "retrying", "delivered", "failed", "cancelled")
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
AFTER = f"""\
The key is read from {KEY}, or from a file: it is not to stand on a command line, where all of the machine see it.
Exit status: 0 done; 1 refused, or failed; 2 written wrongly; 3 the site cannot be reached.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.command == "replay" and bool(options.deliveries) is bool(_wish(options)):
        parser.error("Name deliveries by their numbers, or say which: --since, --subscription, --topic or --status.")
    out = Out(as_json=options.json)
    try:
        with Site(_url(options, parser, out), _key(options, parser, out), tenant=options.tenant) as site:
            return _run(site, out, options)
    except ReaderGoneError:
        return DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    except RefusedError as error:
        out.fail(str(error), code=error.code, status=error.status)
        return FAILED
    except AwayError as error:
        out.fail(str(error), code="away")
        return AWAY


def _run(site: Site, out: Out, options: argparse.Namespace) -> int:
    match options.command:
        case "listen":
            return listening.listen(site, out, forward=options.forward, topics=options.topics)
        case "replay":
            return _replay(site, out, options)
        case "tail":
            return tailing.tail(
                site, out, status=options.status, topic=options.topic, subscription=options.subscription
            )
        case _:
            return topics.show(site, out, options.name)


def _replay(site: Site, out: Out, options: argparse.Namespace) -> int:
    if options.deliveries:
        return replaying.replay_some(site, out, options.deliveries)
    return replaying.replay_all(site, out, _wish(options), dry=options.dry_run, yes=options.yes, wait=options.wait)


def _wish(options: argparse.Namespace) -> replaying.Wish:
    return replaying.Wish(options.subscription, options.since, options.topic, options.status)


def make_parser() -> argparse.ArgumentParser:
    every = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    every.add_argument("--url", type=_address, help=f"the site's address (default: {URL})")
    every.add_argument("--key-file", type=Path, metavar="FILE", help=f"holds the API key (default: {KEY})")
    every.add_argument("--tenant", metavar="SLUG", help="whose; needed with an operator's key, and only there")
    every.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser = argparse.ArgumentParser(
        "signalpost", description="Signalpost's API from the command line.", epilog=AFTER, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"signalpost {__version__}")
    of_each: Any = {"parents": [every], "epilog": AFTER, "allow_abbrev": False}
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    listen = commands.add_parser("listen", **of_each, help="forward what happens to a receiver on this machine")
    listen.add_argument("--forward", type=_address, metavar="URL", help="such as http://localhost:9000/hook")
    listen.add_argument(
        "--topics",
        nargs="+",
        default=[],
        metavar="TOPIC",
        help="such as shop.order.*; all that there are, if not given",
    )

    replay = commands.add_parser("replay", **of_each, help="send deliveries again")
    replay.add_argument("deliveries", nargs="*", type=int, metavar="DELIVERY", help="their numbers")
    replay.add_argument("--since", type=_moment, metavar="WHEN", help="2h, 2026-11-21, 2026-11-21T09:30")
    replay.add_argument("--subscription", type=int, metavar="ID")
    replay.add_argument("--topic", metavar="TOPIC")
    replay.add_argument("--status", choices=STATUSES, default=None, help="that they have now (default: failed)")
    replay.add_argument("--dry-run", action="store_true", help="only say how many there are")
    replay.add_argument("--yes", action="store_true", help="do not ask")
    replay.add_argument("--wait", action="store_true", help="until all are delivered, or have failed")

    tail = commands.add_parser("tail", **of_each, help="print deliveries as they are made and end")
    tail.add_argument("--status", choices=STATUSES, help="only those that come to this")
    tail.add_argument("--subscription", type=int, metavar="ID")
    tail.add_argument("--topic", metavar="TOPIC")

    named = commands.add_parser("topics", **of_each, help="what can be subscribed to")
    named.add_argument("name", nargs="?", metavar="TOPIC", help="its JSON Schema and a sample of its body")
    return parser


def _url(options: argparse.Namespace, parser: argparse.ArgumentParser, out: Out) -> str:
    url = options.url or os.environ.get(URL)
    if not url:
        parser.error(f"Name the site: {URL}=https://hooks.example, or --url.")
    try:
        address = urlsplit(_address(url))
    except argparse.ArgumentTypeError as error:
        parser.error(f"{URL}: {error}")
    if address.username or address.password:
        parser.error(f"{URL}: leave name and password out of the address; the key is all that is sent.")
    if address.scheme == "http" and address.hostname not in LOOPBACK:
        out.warn(f"The key goes to {address.hostname} in the clear: use https.")
    return str(url)


def _key(options: argparse.Namespace, parser: argparse.ArgumentParser, out: Out) -> str:
    key = os.environ.get(KEY, "") if options.key_file is None else _read(options.key_file, parser, out)
    key = key.strip()
    if not key:
        parser.error(f"Give an API key: {KEY}=sp_live_…, or --key-file.")
    if not (key.isascii() and key.isprintable()) or " " in key:
        parser.error("That is no API key: one begins with sp_live_ or sp_test_.")
    return key


def _read(file: Path, parser: argparse.ArgumentParser, out: Out) -> str:
    try:
        text = file.read_text(encoding="ascii")
        mode = file.stat().st_mode
    except (OSError, ValueError) as error:
        parser.error(f"{file} cannot be read: {error}")
    if stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
        out.warn(f"{file} can be read by others: chmod 600 {file}")
    return text


def _moment(text: str) -> datetime:
    try:
        return replaying.moment(text)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no moment: write 2h, 2026-11-21 or 2026-11-21T09:30") from error


def _address(text: str) -> str:
    if not is_address(text) or not text.isprintable() or " " in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no address: write http://… or https://…")
    return text


if __name__ == "__main__":
    sys.exit(main())
