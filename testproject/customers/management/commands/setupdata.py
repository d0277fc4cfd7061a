"""`python manage.py setupdata`: migrate, and make the public tenant and some tenants with a user and orders each."""

import argparse
import re
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, ProgrammingError

from customers.models import Customer, create_customer
from shop.models import Line, Order
from tenant_q.tenancy import in_schema

# Lower case only: django-tenant-schemas folds names.
SCHEMA_NAME = re.compile(r"(?!pg_|public$)[a-z][a-z0-9_]{0,62}")
ARTICLES = ["chair", "lamp", "table"]
BUYERS = ["Ada", "Grace", "Edsger", "Barbara", "Alan", "Radia"]


class Command(BaseCommand):
    help = "Migrates every schema, and makes the public tenant and tenants with a user and orders each."
    # The checks ask the database, which has no tables before the first run.
    requires_system_checks = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("tenants", nargs="*", default=["testone", "testtwo"], help="schema names of the tenants")

    def handle(self, *args: Any, tenants: list[str], verbosity: int, **options: Any) -> None:
        for name in tenants:
            if not SCHEMA_NAME.fullmatch(name):
                raise CommandError(
                    f"{name!r} cannot be a tenant: use lower-case letters, digits and _, first a letter, "
                    "and neither 'public' nor a name that begins with 'pg_'."
                )
        try:
            call_command("migrate_schemas", shared=True, interactive=False, verbosity=0)
        except OperationalError as error:
            said = " ".join(str(error).split())
            raise CommandError(f"PostgreSQL is away ({said}); start it, or name another in DATABASE_URL.") from None
        except ProgrammingError as error:
            said = " ".join(str(error).split())
            raise CommandError(
                f"The schema public cannot be migrated ({said}); a database belongs to one tenancy package, so name "
                f"another in DATABASE_URL for TENANCY={settings.TENANCY}."
            ) from None
        known = set(Customer.objects.values_list("schema_name", flat=True))
        if "public" not in known:
            create_customer("public", "Public")
        make_user("operator", "operator")
        if verbosity:
            self.stdout.write("all tenants: http://localhost:8000/admin/ (user operator, password operator)")
        for name in tenants:
            if name in known:
                call_command("migrate_schemas", schema_name=name, interactive=False, verbosity=0)
                customer = Customer.objects.get(schema_name=name)
            else:
                customer = create_customer(name)
            with in_schema(name):
                fill(name)
            if verbosity:
                self.stdout.write(f"{name}: http://{customer.host}:8000/admin/ (user admin, password {name})")


def make_user(name: str, password: str) -> None:
    """Make a user who may do everything in the current schema's admin, where there is none of that name."""
    users = get_user_model().objects
    if not users.filter(username=name).exists():
        users.create_superuser(name, password=password)


def fill(tenant: str) -> None:
    """Make the tenant's user and orders, where they are missing."""
    make_user("admin", tenant)
    if not Order.objects.exists():
        Order.objects.bulk_create(
            Order(number=f"{tenant}-{n}", buyer=buyer, amount=Decimal(n * 1999) / 100)
            for n, buyer in enumerate(BUYERS, start=1)
        )
    if not Line.objects.exists():
        Line.objects.bulk_create(
            Line(order=order, article=article, quantity=n)
            for order in Order.objects.all()
            for n, article in enumerate(ARTICLES, start=1)
        )
