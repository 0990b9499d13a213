"""From YAML text to a validated ArchSpec, and what identifies it."""
