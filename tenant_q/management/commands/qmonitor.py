"""`python manage.py qmonitor`: Django-Q2's own command, over all tenants."""

from __future__ import annotations

from django_q.management.commands.qmonitor import Command as DjangoQCommand

from tenant_q.management.django_q_commands import OverTenants


class Command(OverTenants, DjangoQCommand):  # type: ignore[misc]
    help = "Django-Q2's qmonitor, over the tasks and schedules of all tenants, or of one."
