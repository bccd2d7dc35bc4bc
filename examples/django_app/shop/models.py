"""The models of the shop."""

from django.db import models


class Order(models.Model):
    """An order; `charged` is True after its payment."""

    total = models.FloatField()
    charged = models.BooleanField(default=False)
