"""The worker and the scheduler of the integration tests."""

from tests.integration.conftest import make_scheduler, make_worker, scheduler, worker

__all__ = ["make_scheduler", "make_worker", "scheduler", "worker"]
