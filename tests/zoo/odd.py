"""Models whose signals come in odd ways."""

from __future__ import annotations

import uuid

from django.db import models

from subscriptions.models import Tenant


class Org(models.Model):
    """The host's own tenant: its key is our `Tenant.key`."""

    code = models.CharField(max_length=20, primary_key=True)

    def __str__(self) -> str:
        return self.code


class Letter(models.Model):
    """Foreign keys that are no primary keys."""

    to_slug = models.ForeignKey(Tenant, models.CASCADE, to_field="slug", related_name="+")
    to_key = models.ForeignKey(Tenant, models.CASCADE, to_field="key", null=True, related_name="+")

    def __str__(self) -> str:
        return self.to_slug_id


class Memo(models.Model):
    org = models.ForeignKey(Org, models.CASCADE, null=True, related_name="+")
    owner_key = models.CharField(max_length=20, blank=True)
    text = models.CharField(max_length=50)

    def __str__(self) -> str:
        return self.text


class Place(models.Model):
    tenant = models.ForeignKey(Tenant, models.CASCADE, null=True, related_name="+")
    name = models.CharField(max_length=50)
    password = models.CharField(max_length=50, blank=True)

    def __str__(self) -> str:
        return self.name


class Restaurant(Place):
    stars = models.IntegerField(default=0)


class Annex(Place):
    """A child whose key is not the link to its parent."""

    code = models.IntegerField(primary_key=True)
    place_ptr = models.OneToOneField(Place, models.CASCADE, parent_link=True)
    worth = models.DecimalField(max_digits=20, decimal_places=2, null=True)


class Seat(models.Model):
    """A key of two columns."""

    pk = models.CompositePrimaryKey("tenant", "number")
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+")
    number = models.IntegerField()
    name = models.CharField(max_length=50)

    def __str__(self) -> str:
        return self.name


class Book(models.Model):
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+")
    title = models.CharField(max_length=50)
    pages = models.IntegerField(default=0)

    def __str__(self) -> str:
        return self.title


class ProxyBook(Book):
    class Meta:
        proxy = True


class Ticket(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+")
    name = models.CharField(max_length=50)

    def __str__(self) -> str:
        return self.name


class Author(models.Model):
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+")
    name = models.CharField(max_length=50)

    def __str__(self) -> str:
        return self.name


class Novel(models.Model):
    """Its tenant is its author's, who is gone before it in a cascade."""

    author = models.ForeignKey(Author, models.CASCADE, related_name="novels")
    editor = models.ForeignKey(Author, models.SET_NULL, null=True, related_name="edited")
    title = models.CharField(max_length=50)

    def __str__(self) -> str:
        return self.title


class Review(models.Model):
    novel = models.ForeignKey(Novel, models.CASCADE, related_name="reviews")
    text = models.CharField(max_length=50)

    def __str__(self) -> str:
        return self.text


class Person(models.Model):
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+")
    name = models.CharField(max_length=50)
    friends = models.ManyToManyField("self")
    follows = models.ManyToManyField("self", symmetrical=False, related_name="followers")

    def __str__(self) -> str:
        return self.name


class Club(models.Model):
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+")
    name = models.CharField(max_length=50)
    members = models.ManyToManyField(Person, through="Belonging", related_name="clubs")

    def __str__(self) -> str:
        return self.name


class Belonging(models.Model):
    club = models.ForeignKey(Club, models.CASCADE)
    person = models.ForeignKey(Person, models.CASCADE)
    role = models.CharField(max_length=20, default="member")

    def __str__(self) -> str:
        return f"{self.person} in {self.club}"


class Swapped(models.Model):
    """Stands aside where ZOO_SWAPPED_MODEL names another model."""

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+")

    class Meta:
        swappable = "ZOO_SWAPPED_MODEL"

    def __str__(self) -> str:
        return "swapped"


class Abstract(models.Model):
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+")

    class Meta:
        abstract = True
