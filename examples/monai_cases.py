"""Search networks for DATA/{images,labels}/*.nii.gz: python examples/monai_cases.py DATA RUN"""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from monai import data, inferers, losses
from monai import transforms as mt

import archspec
import search

BOTH = ("image", "label")
READ = [mt.LoadImaged(BOTH), mt.EnsureChannelFirstd(BOTH), mt.NormalizeIntensityd("image")]


class MonaiCases(search.Cases):
    name, classes = "monai-organ", ("organ",)
    in_channels, num_classes, patch_size, batch_size = 1, 2, (16, 16, 16), 2

    def __init__(self, folder: Path) -> None:
        names = sorted(file.name for file in (folder / "images").glob("*.nii.gz"))
        files = [{part: folder / f"{part}s" / name for part in BOTH} for name in names]
        cached = data.CacheDataset(files, READ, progress=False)
        self.volumes = {name: cached[number] for number, name in enumerate(names)}
        self.test_cases, self.validation_cases, self.training = names[:2], names[2:4], names[4:]

    def batches(self, strides, *, deep_supervision):
        crop = mt.RandCropByPosNegLabeld(BOTH, "label", self.patch_size)
        augment = mt.Compose([crop, mt.RandFlipd(BOTH, prob=0.5, spatial_axis=2)])
        while True:  # MONAI draws from generators of its own: seed them from numpy's, every time
            augment.set_random_state(seed=np.random.randint(2**31))
            cases = np.random.choice(self.training, self.batch_size)
            drawn = [augment(self.volumes[case])[0] for case in cases]
            yield tuple(torch.stack([one[part].as_tensor() for one in drawn]) for part in BOTH)

    def loss(self, strides, *, deep_supervision, kind):
        return losses.DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)

    @torch.inference_mode()
    def score_cases(self, net, device, cases):
        return {case: self.dice(*self.masks(net.eval(), device, case)) for case in cases}

    def masks(self, net, device, case):
        image, label = (self.volumes[case][part].as_tensor() for part in BOTH)
        logits = inferers.sliding_window_inference(image[None].to(device), self.patch_size, 2, net)
        return logits[0].argmax(0).cpu().numpy(), label[0].numpy()


def run(folder: Path, out: Path, *, trials: int = 20, steps: int = 1000):
    spec = archspec.load("small-unet", overrides=["deep_supervision.heads=1"])
    space = search.Space.from_spec(spec, ["encoder.stages.3.mixer"], settings={"steps": steps})
    return search.run(space, cases=partial(MonaiCases, folder), trials=trials, out=out)


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]))
