"""Several captures of the same work put together into one workload."""
