"""An app with the workflows of the tests. What they do is visible in Redis, see `tests.tasks`."""
