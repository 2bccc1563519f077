from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError

from webhooks.audit import BEYOND_REPAIR, KINDS, Gap, Report, audit
from webhooks.management.arguments import counted, duration, moment
from webhooks.models import Delivery

if TYPE_CHECKING:
    from argparse import ArgumentParser

# Seconds between two lines of progress.
PACE = 5.0


class Command(BaseCommand):
    help = "Reconcile events, deliveries and attempts: say what is missing, and fail if anything is."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--since", default="24h", metavar="WHEN", help="2h, 2026-11-21, 2026-11-21T09:30 (default: 24h)"
        )
        parser.add_argument(
            "--grace", default="1m", metavar="SPAN", help="what is late by less is no gap yet (default: 1m)"
        )
        parser.add_argument("--repair", action="store_true", help="put right what can be, and ring")
        parser.add_argument("--json", action="store_true", help="one JSON object, for machines")

    def handle(self, *args: Any, **options: Any) -> None:
        self.told = time.monotonic()
        report = audit(
            moment(options["since"]),
            grace=duration(options["grace"]),
            repair=options["repair"],
            tell=lambda report: None if options["json"] else self._tell_progress(report),
        )
        if options["json"]:
            self.stdout.write(json.dumps(as_json(report)))
        else:
            self._tell(report, repair=options["repair"])
        if report.gaps:
            raise CommandError(f"{counted(sum(gap.count for gap in report.gaps.values()), 'gap')} found.")

    def _tell_progress(self, report: Report) -> None:
        if time.monotonic() - self.told >= PACE:
            self.told = time.monotonic()
            self.stdout.write(f"Walked {counted(report.counts['events'], 'event')} so far.")

    def _tell(self, report: Report, *, repair: bool) -> None:
        counts = report.counts
        self.stdout.write(f"Since {report.since:%Y-%m-%d %H:%M:%S %Z}:")
        refused = f", {counts['refused']:,} refused" if counts["refused"] else ""
        self.stdout.write(f"  {counted(counts['events'], 'event')}: {counts['fanned_out']:,} fanned out{refused}")
        if counts["away"]:
            self.stdout.write(f"  {counted(counts['away'], 'event')} of other databases")
        states = [f"{counts[status]:,} {status}" for status in Delivery.Status.values if counts[status]]
        self.stdout.write(
            ": ".join([f"  {counted(counts['deliveries'], 'delivery')}", *filter(None, [", ".join(states)])])
        )
        self.stdout.write(f"  {counted(counts['attempts'], 'attempt')}: {counts['ended']:,} ended")
        if report.unknown:
            self.stdout.write(
                f"Not known of {counted(report.unknown, 'pair')} of event and subscription: what it listens to, "
                "or that it listens at all, was changed since."
            )
        for kind, gap in report.gaps.items():
            self._tell_gap(kind, gap, repair=repair)
        if not report.gaps:
            self.stdout.write("Nothing is missing.")

    def _tell_gap(self, kind: str, gap: Gap, *, repair: bool) -> None:
        noun = kind.partition("_")[0]
        more = ", …" if gap.count > len(gap.ids) else ""
        self.stdout.write(f"{counted(gap.count, noun)} {KINDS[kind]}: {', '.join(gap.ids)}{more}")
        if kind in BEYOND_REPAIR:
            self.stdout.write("  Beyond repair; `replay --delivery` sends it again.")
        elif repair:
            self.stdout.write(f"  {gap.repaired:,} repaired.")


def as_json(report: Report) -> dict[str, Any]:
    """Every count and kind, zero or not, so that nobody has to guess names."""
    names = ("events", "fanned_out", "refused", "away", "deliveries", *Delivery.Status.values, "attempts", "ended")
    gaps = {kind: report.gaps.get(kind, Gap()) for kind in KINDS}
    return {
        "since": report.since.isoformat(),
        "until": report.until.isoformat(),
        "counts": {name: report.counts[name] for name in names},
        "unknown": report.unknown,
        "gaps": {kind: {"count": gap.count, "repaired": gap.repaired, "ids": gap.ids} for kind, gap in gaps.items()},
    }
