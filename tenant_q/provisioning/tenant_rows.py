"""Make the rows of a new tenant with its schema: by the tenancy package's models, or by the project's own function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.utils.module_loading import import_string
from psycopg import errors, sql

from tenant_q import tenancy
from tenant_q.conf import conf
from tenant_q.exceptions import ConfigurationError, ProvisioningError
from tenant_q.schedules import catalogue
from tenant_q.support.hints import did_you_mean
from tenant_q.support.visible import error_line
from tenant_q.tenancy.connection import is_lost

_DOMAIN_FIELD = "domain_url"
# What PostgreSQL answers to a migration that was carried out and not recorded.
_HALF_RECORDED = (errors.DuplicateTable, errors.DuplicateColumn, errors.DuplicateObject)


def find(schema: str) -> Any:
    """Return the row of a tenant without the cache, or None. Raises `DatabaseAway`."""
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        return (
            tenancy.tenant_model()._default_manager.using(tenancy.database_alias()).filter(schema_name=schema).first()
        )


def require_new_name(schema: str) -> None:
    """Require that a new tenant can have a schema name.

    Raises:
        ConfigurationError: The name is not valid, or a tenant or a schema has it.
        DatabaseAway: The database cannot be reached.
    """
    try:
        tenancy.validate_schema_name(schema)
    except ValidationError as error:
        raise ConfigurationError(" ".join(error.messages)) from error
    if schema == tenancy.public_schema():
        raise ConfigurationError(f"{schema!r} is the public schema; choose another name.")
    if tenancy.is_name_taken(schema):
        if find(schema) is None:
            raise ConfigurationError(
                f"A tenant's schema name differs from {schema!r} in capitals only; choose another."
            )
        raise ConfigurationError(
            f"The tenant {schema!r} exists; to give it a role, run `python manage.py mstenant provision {schema} "
            "--adopt`, or call provision_tenant() with adopt=True."
        )
    if catalogue.has_schema(tenancy.physical_schema(schema)):
        raise ConfigurationError(
            f"The database has a schema {tenancy.physical_schema(schema)!r} that is no tenant's; drop it, or choose "
            "another name."
        )


def require_values(schema: str, fields: Mapping[str, Any], domain: str | None) -> None:
    """Require that the row of a new tenant can have these values, before anything is made.

    Args:
        schema: The schema name.
        fields: The values of the tenant model's fields.
        domain: Its domain, or None.

    Raises:
        ConfigurationError: A field does not exist, or a value is not possible.
        DatabaseAway: The database cannot be reached.
    """
    if conf().make_tenant:
        _function()
        return
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        problem = _problem(lambda: _new_tenant(schema, fields, domain).full_clean())
        problem = problem or _domain_problem(schema, domain)
    if problem:
        raise ConfigurationError(f"The tenant {schema!r} cannot be made: {problem}")


def make(schema: str, fields: Mapping[str, Any], domain: str | None) -> None:
    """Make the rows and the schema of a new tenant, and run its migrations; only what is missing of them.

    Args:
        schema: The schema name.
        fields: The values of the tenant model's fields.
        domain: Its domain, or None.

    Raises:
        ConfigurationError: The project's function fails.
        ProvisioningError: The tenancy package cannot make the tenant, its schema or its tables.
        DatabaseAway: The database cannot be reached.
    """
    with tenancy.detect_outages(), tenancy.as_owner_in_public():
        existing = find(schema)
        if conf().make_tenant:
            tenant, is_complete = _made_by_project(schema, fields, domain), False
        elif existing is None:
            tenant = _new_tenant(schema, fields, domain)
            tenant.clean_fields()  # a text of the command becomes what the field holds
            _run(schema, lambda: tenant.save(verbosity=0))
            is_complete = bool(tenant.auto_create_schema)
        else:
            tenant, is_complete = existing, False
        if not is_complete:
            _run(schema, lambda: tenancy.complete_schema(tenant))
        if not conf().make_tenant:
            _add_domain(tenant, domain)
    tenancy.forget_tenants()


def _new_tenant(schema: str, fields: Mapping[str, Any], domain: str | None) -> Any:
    model = tenancy.tenant_model()
    known = [name for field in model._meta.concrete_fields for name in (field.name, field.attname)]
    for name in fields:
        if name not in known:
            raise ConfigurationError(f"{model.__name__} has no field {name!r}: {did_you_mean(name, known)}")
    values = dict(fields)
    if domain is not None and tenancy.domain_model() is None:
        if not _has_domain_field():
            raise ConfigurationError(f"Neither {model.__name__} nor another model holds domains; leave out the domain.")
        values[_DOMAIN_FIELD] = domain
    return model(schema_name=schema, **values)


def _has_domain_field() -> bool:
    try:
        tenancy.tenant_model()._meta.get_field(_DOMAIN_FIELD)
    except FieldDoesNotExist:
        return False
    return True


def _problem(act: Any) -> str:
    """Return why the values of a new tenant's row are not possible, or an empty text."""
    try:
        act()
    except ValidationError as error:
        found = error.message_dict if hasattr(error, "error_dict") else {"": error.messages}
        return "; ".join(f"{name}: {' '.join(texts)}" if name else " ".join(texts) for name, texts in found.items())
    except (TypeError, ValueError) as error:  # a value that the model's constructor refuses
        return f"{error}."
    return ""


def _domain_problem(schema: str, domain: str | None) -> str:
    model = tenancy.domain_model()
    if domain is None or model is None:
        return ""
    taken = model._default_manager.using(tenancy.database_alias()).filter(domain=domain)
    if taken.exclude(tenant__schema_name=schema).exists():
        return f"the domain {domain!r} belongs to another tenant; choose another one."
    return ""


def _add_domain(tenant: Any, domain: str | None) -> None:
    model = tenancy.domain_model()
    if domain is None or model is None:
        return
    rows = model._default_manager.using(tenancy.database_alias())
    if not rows.filter(domain=domain, tenant=tenant).exists():
        rows.create(domain=domain, tenant=tenant, is_primary=True)


def _made_by_project(schema: str, fields: Mapping[str, Any], domain: str | None) -> Any:
    """Have the project's function make the rows. After a kill it is called again, and finds what it made."""
    path = conf().make_tenant
    try:
        tenant = _function()(schema, dict(fields), domain)
    except Exception as error:
        if is_lost(tenancy.tenant_connection()):
            raise
        raise ConfigurationError(
            f"TENANT_Q['make_tenant'] ({path}) fails for {schema!r}: {error_line(error)}; correct it, and run the same "
            "command again."
        ) from error
    if getattr(tenant, "schema_name", None) != schema:
        raise ConfigurationError(
            f"TENANT_Q['make_tenant'] ({path}) does not return the tenant {schema!r}; let it return the saved row."
        )
    return tenant


def _function() -> Any:
    path = str(conf().make_tenant)
    try:
        return import_string(path)
    except ImportError as error:
        raise ConfigurationError(
            f"TENANT_Q['make_tenant'] ({path}) cannot be imported: {error}; correct it."
        ) from error


def _run(schema: str, act: Any) -> None:
    """Call the tenancy package to make a tenant, its schema or its tables."""
    try:
        act()
    except Exception as error:
        if is_lost(tenancy.tenant_connection()):
            raise
        way_out = "correct that, and run the same command again"
        if isinstance(error.__cause__, _HALF_RECORDED):
            quoted = sql.Identifier(tenancy.physical_schema(schema)).as_string()
            way_out = (
                "if an earlier run was killed, Django had made these tables and not recorded their migration yet: if "
                f"nothing uses them, run DROP SCHEMA {quoted} CASCADE; and the same command again"
            )
        raise ProvisioningError(
            f"The tenancy package cannot make the tenant {schema!r}: {error_line(error)}; {way_out}."
        ) from error
