"""The space: holes in a spec, how they are filled, limited, matched, and what is tried first."""
