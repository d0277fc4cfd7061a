"""Schedules: when they are due, how they fire, and what a tenant's staff may do with them."""
