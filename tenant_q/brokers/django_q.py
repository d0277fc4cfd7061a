"""Django-Q2's broker interface over ours, for Django-Q2's own code.

Django-Q2's `async_task`, `qinfo`, `qmonitor` and admin get their broker from `django_q.brokers.get_broker()`. It
returns this one, so they share the queues of the cluster.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from django_q.brokers import Broker

from tenant_q.brokers import strays
from tenant_q.brokers.messages import message_of, refusal_of
from tenant_q.brokers.protocol import Message
from tenant_q.brokers.redis import RedisBroker
from tenant_q.conf import conf
from tenant_q.exceptions import BadPackage, BrokerError, EnqueueError, EntryRefused
from tenant_q.package import envelope, signing
from tenant_q.tenancy import keys_of, on_commit, require_authorized
from tenant_q.tenancy.cache import tenant_cache


class TenantBroker(Broker):  # type: ignore[misc]
    """A Django-Q2 broker that puts each task on its tenant's queue. `list_key` is the cluster's name."""

    def __init__(self, list_key: str | None = None) -> None:
        self.list_key = list_key or conf().cluster
        self.inner = RedisBroker(self.list_key, keys_of=keys_of)
        self.connection = self.inner.client
        self.cache = tenant_cache()
        self._info: str | None = None

    def __getstate__(self) -> str:
        return self.list_key

    def __setstate__(self, state: str) -> None:
        self.__init__(state)  # type: ignore[misc]

    def enqueue(self, task: str) -> str:
        """Put a task that Django-Q2 signed on its tenant's queue, on commit if the task or the settings say so.

        If another task has its unique key, it is not enqueued. Its id, which Django-Q2 returns to the caller, then
        stands for the other task.

        Returns:
            The id of the task.

        Raises:
            EnqueueError: The task names no tenant, is not signed, or is too large.
            QueueFull: The tenant's `max_queued` leaves no room for it.
            TenantNotAuthorized: The calling code is restricted to another tenant.
        """
        try:
            package = envelope.open_package(task)
        except BadPackage as error:
            raise EnqueueError(f"The task is refused: {error}.") from error
        require_authorized(package.schema)
        envelope.refuse_too_large(package, signing.size_of(task), conf().max_bytes)
        push = partial(self._push, message_of(package, task, needs_alias=True), package.option("cluster"))
        if package.is_on_commit:
            on_commit(push)
        else:
            push()
        return package.id

    def _push(self, message: Message, cluster: str | None) -> None:
        inner = self.inner if cluster in (None, self.list_key) else RedisBroker(cluster, keys_of=keys_of)
        try:
            if message.unique is None:
                inner.enqueue([message], limited=True)
            else:
                inner.enqueue_unique(message, limited=True)
        except EntryRefused as error:
            raise refusal_of([message], error) from error
        strays.note(inner)

    def dequeue(self) -> None:
        raise BrokerError("qcluster cannot serve tenants' queues; run `python manage.py mscluster`.")

    def queue_size(self) -> int:
        return self.inner.queue_size()

    def lock_size(self) -> int:
        return self.inner.counts().leased

    def purge_queue(self) -> None:
        self.inner.purge()

    delete_queue = purge_queue

    def ping(self) -> bool:
        self.inner.ping()
        return True

    def info(self) -> str:
        self._info = self._info or self.inner.info()
        return self._info

    def set_stat(self, key: str, value: str, timeout: int) -> None:
        self.inner.set_stat(key, value, timeout)

    def get_stat(self, key: str) -> Any:
        return self.inner.get_stat(key)

    def get_stats(self, pattern: str) -> list[Any]:
        return self.inner.get_stats(pattern)
