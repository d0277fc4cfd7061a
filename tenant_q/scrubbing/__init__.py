"""Take back what a task leaves in its sessions and in its process, so that the next tenant's task does not see it."""
