"""What a network costs before it is trained: FLOPs, bytes, time, side by side."""
