"""Forget what this process has cached: after a fork, and between tests.

Settings, connections and caches belong to one process. Each module keeps its own and can forget it; this is the list
of all of them.
"""

from __future__ import annotations

from tenant_q import brokers, tenancy
from tenant_q.conf import conf
from tenant_q.lifecycle import progress
from tenant_q.schedules import catch_up, code_sync
from tenant_q.scrubbing import process_state


def reset() -> None:
    """Reset this process: forget all that it has cached or noted.

    The only exceptions are what child processes inherit on purpose: the settings of database roles at the start of the
    cluster, the causes for which a worker was replaced, and the name of the configured database.
    """
    conf.cache_clear()  # the settings, and with them the name of the cluster
    tenancy.forget_tenants()  # rows, keys, verified tables and foreign schemas
    brokers.forget_brokers()  # brokers, clients of Redis, and the unknown clusters already logged
    progress.report_to(None)  # where the progress of tasks is reported
    code_sync.forget_logged()
    catch_up.forget()  # the schedules already logged as behind
    process_state.forget()  # what is restored after a task


def reset_in_child() -> None:
    """Reset a forked process, which calls it first: let go of the parent's connections, then forget all else."""
    tenancy.drop_inherited_connections()
    reset()
