import json

import httpx2
from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_http_methods, require_safe

from .health import payments
from .models import Order


@require_http_methods(["GET", "POST"])
def orders(request: HttpRequest) -> JsonResponse:
    if request.method == "POST":
        order = Order.objects.create(item=json.loads(request.body)["item"])
        return JsonResponse({"id": order.pk}, status=201)
    items = Order.objects.order_by("id").values_list("item", flat=True)
    return JsonResponse(list(items), safe=False)


# The fallback is what the shop can always offer by itself. While that service is slow, it holds up
# four of a worker's eight threads at most.
@payments.guard(fallback=["invoice"], max_concurrent=4)
async def payment_methods() -> list[str]:
    # A client for each call: by WSGI, each request to an async view has an event loop of its own.
    async with httpx2.AsyncClient(base_url=settings.PAYMENTS_URL, timeout=1.0) as http:
        response = await http.get("/methods")
    response.raise_for_status()
    methods: list[str] = response.json()["methods"]
    return methods


@require_safe
async def offered(_request: HttpRequest) -> JsonResponse:
    return JsonResponse(await payment_methods(), safe=False)
