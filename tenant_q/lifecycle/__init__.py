"""One task, from the call that enqueues it to what follows its result."""
