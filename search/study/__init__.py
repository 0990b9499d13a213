"""The study: the loop that asks and tells, its storage, its record, its resuming."""
