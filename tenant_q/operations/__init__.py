"""What operators see and do: status, health, metrics, dead letters, renamed and deleted tenants."""
