"""Search networks for 2-D images without nnU-Net: python examples/png_cases.py DATA RUN

DATA holds grey images/*.png of one size, and labels/*.png of the same names, 1 where a cell is.
"""

import hashlib
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import archspec
import search


class PngCases(search.Cases):
    name, classes = "png-cells", ("cell",)
    in_channels, num_classes, batch_size = 1, 2, 4

    def __init__(self, folder: Path) -> None:
        files = sorted(folder.glob("*/*.png"))
        pixels = {file: np.array(Image.open(file).convert("L")) for file in files}
        whole = {file: torch.from_numpy(one)[None, None] for file, one in pixels.items()}
        self.images = {f.stem: one / 255 for f, one in whole.items() if f.parent.name == "images"}
        self.labels = {f.stem: one for f, one in whole.items() if f.parent.name == "labels"}
        cases = list(self.images)
        self.test_cases, self.validation_cases = cases[0::5], cases[1::5]
        self.training = sorted({*cases} - {*self.test_cases, *self.validation_cases})
        self.patch_size = tuple(self.images[cases[0]].shape[2:])
        self.fingerprint = hashlib.sha256(b"".join(one.data for one in pixels.values())).hexdigest()

    def batches(self, strides, *, deep_supervision):
        while True:
            cases = np.random.choice(self.training, self.batch_size)
            axes = [axis for axis in (2, 3) if np.random.rand() < 0.5]
            images, labels = (
                torch.cat([part[case] for case in cases]).flip(axes)
                for part in (self.images, self.labels)
            )
            yield images, self.targets(labels, strides, deep_supervision=deep_supervision)

    @torch.inference_mode()
    def score_cases(self, net, device, cases):
        net.eval()
        found = {case: net(self.images[case].to(device)).argmax(1).cpu() for case in cases}
        return {case: self.dice(one.numpy(), self.labels[case][0]) for case, one in found.items()}


def run(data: Path, out: Path, *, trials: int = 20, steps: int = 1000):
    spec = archspec.load("small-unet", overrides=["patch_size=[64, 64]"])
    space = search.Space.from_spec(spec, ["encoder.stages.*.depth"], settings={"steps": steps})
    return search.run(space, cases=partial(PngCases, data), trials=trials, out=out)


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]))
