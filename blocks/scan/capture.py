"""What a CUDA graph cannot record: the first use of a device, which copies to it and waits."""

import torch


def refuse_in_capture(device: torch.device) -> None:
    """Refuse what must have been done before the capture of a CUDA graph began.

    Raises:
        RuntimeError: the device's current stream is being captured.
    """
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            f"the scan cannot be set up on {device} while a CUDA graph is captured: run the "
            "network once before, forward and backward, at the same sizes"
        )
