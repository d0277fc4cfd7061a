"""The tenants: one customer, one PostgreSQL schema."""

from django.conf import settings
from django.db import models

if settings.TENANCY == "django_tenants":
    from django_tenants.models import DomainMixin, TenantMixin
else:
    from tenant_schemas.models import TenantMixin


class Customer(TenantMixin):
    """A tenant. Saving a new one makes its schema and runs its migrations."""

    name = models.CharField(max_length=100)
    created = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name

    @property
    def host(self) -> str:
        """The host name the tenant is served at. A host name has no underscore."""
        if self.schema_name == "public":
            return "localhost"
        return f"{self.schema_name.replace('_', '-')}.localhost"


if settings.TENANCY == "django_tenants":

    class Domain(DomainMixin):
        """A host name of a tenant. `django-tenant-schemas` keeps it in the tenant's own `domain_url`."""


def create_customer(schema_name: str, name: str | None = None) -> Customer:
    """Make a tenant with its schema and its host name."""
    customer = Customer(schema_name=schema_name, name=name or schema_name.replace("_", " ").title())
    if settings.TENANCY == "tenant_schemas":
        customer.domain_url = customer.host
    customer.save(verbosity=0)
    if settings.TENANCY == "django_tenants":
        Domain.objects.create(tenant=customer, domain=customer.host)
    return customer
