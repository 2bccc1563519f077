"""One model with every kind of field, and a few with the odd ones."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.db.models import F
from django.db.models.functions import Now

from subscriptions.models import Tenant

if TYPE_CHECKING:
    AnyField = models.Field[Any, Any]
    AnyCharField = models.CharField[Any, Any]
else:
    AnyField, AnyCharField = models.Field, models.CharField

HERE = Path(__file__).parent


class Colour:
    """A value of a custom field; two of them are not equal by themselves."""

    def __init__(self, red: int, green: int, blue: int) -> None:
        self.parts = (red, green, blue)

    @classmethod
    def parse(cls, text: str) -> Colour:
        return cls(*bytes.fromhex(text.removeprefix("#")))

    def __str__(self) -> str:
        return "#" + bytes(self.parts).hex()


class ColourField(AnyField):
    """Not a subclass of what DRF knows: it falls back on `value_to_string`."""

    def db_type(self, connection: Any) -> str:
        return "varchar(7)"

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Colour | None:
        return None if value is None else Colour.parse(value)

    def to_python(self, value: Any) -> Any:
        return Colour.parse(value) if isinstance(value, str) else value

    def get_prep_value(self, value: Any) -> str | None:
        return None if value is None else str(value)

    def value_to_string(self, obj: Any) -> str:
        return str(self.value_from_object(obj))


class LowerField(AnyCharField):
    """A kind that DRF knows, which stores something else than it is given."""

    def get_prep_value(self, value: Any) -> Any:
        text = super().get_prep_value(value)
        return text.lower() if isinstance(text, str) else text


class Keeper(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    badge = models.CharField(max_length=10, unique=True)

    def __str__(self) -> str:
        return self.badge


class Animal(models.Model):
    class Size(models.TextChoices):
        SMALL = "S", "small"
        LARGE = "L", "large"

    class Rank(models.IntegerChoices):
        LOW = 1
        HIGH = 2

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+")
    name = models.CharField(max_length=50)
    notes = models.TextField(blank=True)
    slug = models.SlugField(blank=True)
    email = models.EmailField(blank=True)
    site = models.URLField(blank=True)
    size = models.CharField(max_length=1, choices=Size, default=Size.SMALL)
    rank = models.IntegerField(choices=Rank, default=Rank.LOW)
    legs = models.IntegerField(default=4)
    steps = models.BigIntegerField(default=0)
    age = models.PositiveSmallIntegerField(null=True)
    tame = models.BooleanField(default=False)
    vaccinated = models.BooleanField(null=True)
    weight = models.FloatField(default=1.5)
    price = models.DecimalField(max_digits=12, decimal_places=2, default=0)
    discount = models.DecimalField(max_digits=5, decimal_places=4, null=True)
    born = models.DateField(null=True)
    seen_at = models.DateTimeField(null=True)
    touched_at = models.DateTimeField(auto_now=True)
    fed_at = models.TimeField(null=True)
    nap = models.DurationField(null=True)
    chip = models.UUIDField(null=True)
    address = models.GenericIPAddressField(null=True)
    photo = models.FileField(upload_to="photos", null=True)
    chart = models.FilePathField(path=str(HERE), match=r".*\.py$", blank=True)
    dna = models.BinaryField(null=True)
    traits = models.JSONField(default=dict)
    log = models.JSONField(null=True, encoder=DjangoJSONEncoder)
    colour = ColourField(null=True)
    nick = LowerField(max_length=20, blank=True)
    keeper = models.ForeignKey(Keeper, models.SET_NULL, null=True, related_name="+")
    deputy = models.ForeignKey(Keeper, models.SET_NULL, null=True, to_field="badge", related_name="+")
    mother = models.ForeignKey("self", models.SET_NULL, null=True, related_name="+")
    friends = models.ManyToManyField("self", blank=True)
    keepers = models.ManyToManyField(Keeper, blank=True, related_name="+")
    secret_name = models.CharField(max_length=20, blank=True)

    def __str__(self) -> str:
        return self.name


class Visible(models.Manager["Crate"]):
    def get_queryset(self) -> models.QuerySet[Crate]:
        return super().get_queryset().exclude(state="gone")


class Crate(models.Model):
    """What the database makes of its own accord."""

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+")
    width = models.IntegerField(default=1)
    height = models.IntegerField(default=1)
    area = models.GeneratedField(
        expression=F("width") * F("height"), output_field=models.IntegerField(), db_persist=True
    )
    state = models.CharField(max_length=10, db_default="new")
    made_at = models.DateTimeField(db_default=Now())

    objects = Visible()

    def __str__(self) -> str:
        return f"crate {self.pk}"


class Passport(models.Model):
    """A key that is a foreign key, and one made of text."""

    animal = models.OneToOneField(Animal, models.CASCADE, primary_key=True, related_name="passport")
    number = models.CharField(max_length=10)

    def __str__(self) -> str:
        return self.number
