"""One page, for the Django project of `pass_through`."""

from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("orders/7", lambda request: HttpResponse("hello"))]
