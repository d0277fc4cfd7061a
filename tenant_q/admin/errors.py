"""Show an error of tenant_q on a page: a tenant's page names no server, and the log has what it leaves out."""

from __future__ import annotations

from django.utils.translation import gettext as _

from tenant_q import tenancy
from tenant_q.exceptions import BrokerDefect, BrokerError, ConfigurationError, DatabaseAway, EntryRefused, TenantQError
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.admin")

# The texts of these name hosts, ports and settings.
_OF_OPERATORS = (BrokerDefect, BrokerError, ConfigurationError, DatabaseAway, EntryRefused)


def error_text(error: TenantQError) -> str:
    """Return the text of an error for a page.

    Args:
        error: The error.

    Returns:
        Its own text on a page of the public site, and for an error that concerns what the user did. Otherwise a
        sentence without the names of servers; the log then has the error.
    """
    schema = tenancy.current_schema()
    if not isinstance(error, _OF_OPERATORS) or schema == tenancy.public_schema():
        return str(error)
    logger.error("A page of %s could not be served: %s", schema, error, event="admin.failed", extra={"schema": schema})
    if isinstance(error, EntryRefused):
        return _("The task queue refuses this task, which may be too large.")
    return _("The task queue does not answer at the moment. Try again in a few minutes.")
