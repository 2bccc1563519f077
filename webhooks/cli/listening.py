"""`signalpost listen`: what a new subscription hears, to a receiver on this machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NoReturn

from webhooks.cli import AWAY, DONE, FAILED
from webhooks.cli.forwarding import NobodyThereError, Receiver
from webhooks.cli.showing import BAD, GOOD, clock, now
from webhooks.cli.site import TEST, AwayError, Backoff, RefusedError
from webhooks.cli.temporary import GONE, Temporary, clean_up
from webhooks.management.printing import indented
from webhooks.management.stopping import stopped_by_signals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from webhooks.cli.forwarding import Answer
    from webhooks.cli.showing import Out
    from webhooks.cli.site import Site

EVERYTHING = "*"
LIMIT = 100  # events of one answer
EVERY = 1.0  # seconds between two questions where there is nothing new
TEST_KEY = (
    "This is a key for tests: nothing that it makes is kept, so there would be nothing to hear. Use an sp_live_ key."
)


def listen(site: Site, out: Out, *, forward: str | None, topics: Sequence[str]) -> int:
    with stopped_by_signals():
        listener = Listener(site, out, topics or [EVERYTHING], forward)
        try:
            listener.run()
        except KeyboardInterrupt:
            return listener.end()
        except Exception:
            listener.end()
            raise


class Listener:
    def __init__(self, site: Site, out: Out, topics: Sequence[str], forward: str | None) -> None:
        self.site, self.out = site, out
        self.own = Temporary(site, topics)
        self.receiver = Receiver(forward) if forward else None
        self.position = 0

    def run(self) -> NoReturn:
        """Until it is stopped."""
        self._begin()
        while True:
            stretch = self.site.patiently(self._ask, told=self._away, back=self._back)
            for item in stretch["data"]:
                self._take(item)
                # Not before: what was not forwarded is asked for again.
                self.position = item["position"]
            self.position = stretch["position"]
            if not stretch["more"]:
                time.sleep(EVERY)

    def end(self) -> int:
        """Leave nothing behind, or say what; the exit status."""
        if self.receiver is not None:
            self.receiver.close()
        number = self.own.id
        try:
            self.own.close()
        except (AwayError, RefusedError) as error:
            self.out.warn(f"The temporary subscription {number} could not be deleted: {error}")
            self.out.warn("The next `signalpost listen` deletes it once its time is over; or delete it on its page.")
            return AWAY if isinstance(error, AwayError) else FAILED
        if number is not None:
            self.out.say(f"Stopped; the temporary subscription {number} is deleted.")
        return DONE

    def _begin(self) -> None:
        if deleted := clean_up(self.site):
            self.out.say(f"Deleted {deleted} that listeners before left behind.")
        if self.site.mode == TEST:
            raise RefusedError(0, "test_key", TEST_KEY)
        self.own.open()
        where = f", forwarding to {self.receiver.url}" if self.receiver else ""
        self.out.say(
            f"Listening to {', '.join(self.own.topics)} by the temporary subscription {self.own.id}{where} (Ctrl-C stops)"
        )
        if self.receiver:
            self.out.say(f"Each is signed with {self.own.secrets[0]}")

    def _ask(self) -> Any:
        try:
            self.own.renew()
            return self.site.get(f"{self.own.path}feed/", after=self.position, limit=LIMIT)
        except RefusedError as error:
            if error.status != GONE:
                raise
        self.out.warn(f"The temporary subscription {self.own.id} is gone; what happened since is not heard.")
        self.own.open()
        self.position = 0
        self.out.say(f"Listening by the temporary subscription {self.own.id}; signed with {self.own.secrets[0]}")
        return {"data": [], "position": 0, "more": True}

    def _away(self, why: str) -> None:
        self.out.warn(f"{why} Trying again until it does.")

    def _back(self) -> None:
        self.out.say("The site answers again; going on where it stopped.")

    def _take(self, item: dict[str, Any]) -> None:
        if self.receiver is None:
            self._print(item, None)
            return
        backoff = Backoff()
        while True:
            try:
                answer = self.receiver.forward(item["id"], item["body"].encode(), secrets=self.own.secrets)
            except NobodyThereError as error:
                if not backoff.times:
                    self.out.warn(f"{self.receiver.url} does not answer ({error}). Trying again until it does.")
                backoff.wait()
            else:
                self._print(item, answer)
                return

    def _print(self, item: dict[str, Any], answer: Answer | None) -> None:
        text = f"{clock()} {item['type']} {item['id']}"
        values: dict[str, Any] = {"time": now(), "topic": item["type"], "id": item["id"]}
        if answer is None:
            self.out.line(text, **values, body=item["body"])
            if not self.out.as_json:
                self.out.block(indented(item["body"].encode()))
            return
        values |= {"status": answer.status, "ms": answer.milliseconds}
        self.out.line(
            f"{text} {answer.status} in {answer.milliseconds} ms", colour=GOOD if answer.good else BAD, **values
        )
