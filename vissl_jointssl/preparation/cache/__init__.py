"""The prepared folder on disk: arrays, records, lock, report."""
