"""What the shop knows."""

from django.db import models


class Order(models.Model):
    """An order; `charged` once it was paid for."""

    total = models.FloatField()
    charged = models.BooleanField(default=False)
