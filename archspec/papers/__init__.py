"""What the papers say beside what this package measures."""
