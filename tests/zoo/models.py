"""Models of every odd kind, for the tests of capture."""

from __future__ import annotations

from tests.zoo.kinds import Animal, Crate, Keeper, Passport  # noqa: F401
from tests.zoo.odd import (  # noqa: F401
    Annex,
    Author,
    Belonging,
    Book,
    Club,
    Letter,
    Memo,
    Novel,
    Org,
    Person,
    Place,
    ProxyBook,
    Restaurant,
    Review,
    Seat,
    Swapped,
    Ticket,
)
