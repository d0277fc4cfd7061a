"""Helpers without a database and without a broker: logs, signals of the system, forks, clocks, checks of calls."""
