"""From a spec to a network: shapes planned, modules built, published weights mapped."""
