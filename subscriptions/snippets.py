"""How a receiver verifies what it gets, in the languages that most are written in."""

from __future__ import annotations

from dataclasses import dataclass

PYTHON = """\
from standardwebhooks.webhooks import Webhook  # pip install standardwebhooks

payload = Webhook("whsec_…").verify(request.body, request.headers)
"""
NODE = """\
import { Webhook } from "standardwebhooks";            // npm install standardwebhooks

const payload = new Webhook("whsec_…").verify(rawBody, request.headers);
"""
GO = """\
import standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

wh, err := standardwebhooks.NewWebhook("whsec_…")
err = wh.Verify(body, request.Header)
"""


@dataclass(frozen=True, slots=True)
class Snippet:
    language: str
    name: str
    code: str


# README.md shows the same.
SNIPPETS = (
    Snippet("python", "Python", PYTHON),
    Snippet("js", "Node.js", NODE),
    Snippet("go", "Go", GO),
)
