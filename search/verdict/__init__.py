"""Is a searched network worth using instead of what nnU-Net planned, or a mixer worth its place?"""
