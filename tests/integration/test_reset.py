"""What a process has cached is forgotten by one call."""

from __future__ import annotations

import os

from django.db import connection

from tenant_q import tenancy
from tenant_q.brokers import get_broker, strays
from tenant_q.cluster.reset import reset, reset_in_child
from tenant_q.conf import conf
from tenant_q.lifecycle import progress
from tenant_q.schedules import catch_up
from tenant_q.scrubbing import process_state
from tenant_q.tenancy import foreign_schemas, records, verification
from tenant_q.tenancy import tenants as cached_tenants

A = "acme_corp"


def test_everything_is_forgotten(tenants):
    before, broker = conf(), get_broker()
    with tenancy.in_verified_schema(A):
        tenancy.created_at(A, tenancy.current_key(A))
    progress.report_to(lambda id, progress: None)
    process_state.note()
    strays._noted.add("elsewhere")
    catch_up._behind.add((A, 1))
    of_tenants = (cached_tenants._known, verification._whole_tables, foreign_schemas._foreign, records._since)
    caches = (*of_tenants, strays._noted)
    assert all(caches)
    reset()
    assert not any((*caches, catch_up._behind, progress._report))
    assert process_state._modules == -1
    assert conf() is not before
    assert get_broker() is not broker
    assert get_broker().client is not broker.client


def test_a_forked_process_shares_no_connection(tenants):
    connection.ensure_connection()
    broker = get_broker()
    broker.ping()
    pid = os.fork()
    if pid == 0:
        try:
            reset_in_child()
            os._exit(0 if connection.connection is None and get_broker() is not broker else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    assert get_broker() is broker
