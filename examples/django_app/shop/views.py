"""The views of the shop: they store and publish orders."""

import json

from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from abe_router import PayloadInvalid
from shop.models import Order
from shop.router import router


@csrf_exempt
async def orders(request: HttpRequest) -> JsonResponse:
    """Create an order, or list all orders."""
    if request.method != "POST":
        return JsonResponse([order async for order in Order.objects.values()], safe=False)
    order = await Order.objects.acreate(total=json.loads(request.body)["total"])
    try:
        await router.publish("orders.created", {"id": order.pk, "total": order.total})
    except PayloadInvalid as error:
        await order.adelete()
        return JsonResponse({"error": str(error)}, status=422)
    return JsonResponse({"id": order.pk}, status=202)
