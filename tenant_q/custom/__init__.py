"""`Iter`, `Chain` and `AsyncTask`: the classes of `django_q.tasks`, per tenant."""

from tenant_q.custom.async_tasks import AsyncTask
from tenant_q.custom.chains import Chain
from tenant_q.custom.iters import Iter

__all__ = ["AsyncTask", "Chain", "Iter"]
