"""The URLs of the shop."""

from django.urls import path

from shop.views import orders

urlpatterns = [path("orders", orders)]
