"""TEMPORARY while the pages are being built: must not exist at the end."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import render

from subscriptions.pages.access import TenantRequest, page


@page()
def soon(request: TenantRequest, **kwargs: object) -> HttpResponse:
    return render(request, "signalpost/base.html")
