"""The console script `signalpost`: a client of the REST API.

It runs where there is no Django project: no settings, no database, no models;
only an API key, the site's address and httpx.
"""

# How it ends.
DONE, FAILED, WRONG, AWAY = 0, 1, 2, 3
