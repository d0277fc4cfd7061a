"""Restore the sessions and the process after a task, so that the next tenant's task does not see what it left."""
