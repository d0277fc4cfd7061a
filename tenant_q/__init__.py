"""A multi-tenant task cluster for Django: Django-Q2's tasks and schedules, per PostgreSQL schema."""

__version__ = "0.1.0"
