"""The blocks of README and how-to pages, run as they stand but for numbers that make them small.

Each runs in a folder of its own that holds what the page speaks of: three phantoms that nnU-Net has
preprocessed, a spec, a space, masks, a network that nnU-Net has trained.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.archspec.network.test_published import FILE, SMALL
from tests.postgres import PASSWORD, Postgres, programs
from tests.ray_cluster import HEAD, NODES, RayCluster

ROOT = Path(__file__).parents[1]
ONE_PROCESS = {
    "OMP_NUM_THREADS": "1",
    "nnUNet_n_proc_DA": "1",
    "nnUNet_def_n_proc": "1",
    "nnUNet_compile": "f",
}
_BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", flags=re.DOTALL | re.MULTILINE)
TRAINER = "nnUNet_extTrainer"
FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
PREPARE = """
for name in Dataset004_Hippocampus Dataset027_ACDC Dataset901_Reach; do
    archspec phantom $nnUNet_raw/$name --task reach --distance 16 --cases 10 --test-cases 2
done
nnUNetv2_plan_and_preprocess -d 4 27 901 -c 3d_fullres -np 1 -npfp 1
archspec export best.yaml --dataset 4 --plans-name net
nnUNetv2_train Dataset004_Hippocampus 3d_fullres 0 -p net -tr nnUNetTrainerArchSpec -device cpu
net=$nnUNet_results/Dataset004_Hippocampus/nnUNetTrainerArchSpec__net__3d_fullres
archspec convert-model $net -o best.safetensors
archspec convert-model $net --to onnx -o net.onnx
cp -r $nnUNet_raw/Dataset004_Hippocampus/imagesTs IMAGES
cp -r $nnUNet_raw/Dataset004_Hippocampus/labelsTs labelsTs
"""


AFTER_DASHES = """while [ "$1" != -- ]; do shift; done; shift; exec "$@\""""
LINES = "    - {plans: nnUNetPlans, width: 8}\n    - {plans: nnUNetPlans, width: 4}\n"
MASKS = """for masks in OUT OTHER; do
    cp -r labelsTs $masks
    cp $nnUNet_raw/Dataset901_Reach/dataset.json $masks
done"""
LANGUAGES = ("bash", "console", "python")
PATCHES = """
import archspec, torch
net = archspec.from_pretrained("best.safetensors")
patches = torch.randn(2, net.planned.in_channels, *net.planned.patch_size).numpy()
"""
OFFICIAL = f"""python - <<'PYTHON'
import numpy, torch
with numpy.load("{FILE}") as file:
    weights = {{k[3:]: torch.from_numpy(file[k]) for k in file.files if k.startswith("sd/")}}
torch.save(weights, "segmamba_official.pth")
PYTHON"""


@dataclass(frozen=True)
class Block:
    """One block: its page and place there, what is replaced, what runs before, what it makes."""

    page: str
    number: int
    smaller: dict[str, str] = field(default_factory=dict)
    before: str = ""
    makes: tuple[str, ...] = ()


TRIALS = {"--trials 40": "--trials 2", "--trials 80": "--trials 3"}
FEW = {"--steps 5000": "--steps 2", "--folds 0-4 --seeds 3": "--folds 0 --seeds 2"}
CPU = {
    "-tr nnUNetTrainerArchSpec\n": "-tr nnUNetTrainerArchSpec -device cpu\n",
    "-o OUT": "-o OUT -device cpu",
}
BLOCKS = [
    Block(
        "README.md",
        2,
        {"--hours 8": "--hours 0.03"},
        makes=("runs/first/report.html", "runs/first/verdict.md", "best.yaml"),
    ),
    Block("docs/search.md", 0, TRIALS, makes=("runs/first/report.html", "best.yaml")),
    Block("docs/bench.md", 0, FEW, makes=("bench/table.tex",)),
    Block("docs/bench.md", 1, {"901": "902", "--steps 40": "--steps 4"}, makes=("bench/table.md",)),
    Block(
        "docs/checks.md",
        0,
        before=MASKS,
    ),
    Block("docs/train.md", 0, CPU, makes=("OUT",)),
    Block("docs/data.md", 0),
    Block(
        "docs/verdict.md",
        0,
        {"--hours 24": "--hours 0.02 --space my-space.yaml"},
        makes=("runs/verdict/verdict.md",),
    ),
    Block(
        "docs/predict.md", 0, before="ln -s $nnUNet_results; ln -s IMAGES images", makes=("masks",)
    ),
    Block(
        "docs/predict.md",
        1,
        before='import archspec\nnet = archspec.build("small-unet")',
        makes=("net.safetensors",),
    ),
    Block("docs/deploy.md", 0, before=PATCHES),
    Block(
        "docs/networks.md",
        0,
        {"-o": f"-s {' -s '.join(SMALL)} -o"},
        before=OFFICIAL,
        makes=("segmamba.safetensors",),
    ),
]


def blocks(page: str) -> list[tuple[str, str]]:
    """Return language and text of a page's blocks that can be run."""
    found = _BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    return [(language, text) for language, text in found if language in LANGUAGES]


def run(lines: str, folder: Path, environment: dict[str, str]) -> None:
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", lines],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, lines + ended.stdout[-3000:] + ended.stderr[-3000:]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Return a folder with the reader's files, and the environment."""
    folder = tmp_path_factory.mktemp("desk")
    programs = [str(Path(sys.executable).parent), sysconfig.get_path("scripts")]
    environment = {
        **os.environ,
        **ONE_PROCESS,
        **{name: str(folder / name) for name in FOLDERS},
        TRAINER: str(ROOT / "archspec" / "nnunet" / "trainers"),
        "PATH": os.pathsep.join([*programs, os.environ["PATH"]]),
    }
    net = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)[0]
    (folder / "my-net.yaml").write_text(net)
    short = net.replace("schedule: cosine}", "schedule: cosine, epochs: 1, iterations: 2}")
    assert short != net
    (folder / "best.yaml").write_text(short)
    space = (ROOT / "specs" / "search" / "demo.yaml").read_text()
    assert "steps: 400" in space and "stopper: none" in space
    space = space.replace("steps: 400", "steps: 4").replace("  anchors:\n", f"  anchors:\n{LINES}")
    (folder / "my-space.yaml").write_text(space)
    persons = "".join(f"case_{i:04d},{i}\n" for i in range(1, 11))
    (folder / "persons.csv").write_text("case,person\n" + persons)
    run(PREPARE, folder, environment)
    return folder, environment


def folder_for(block: Block, desk: Path) -> Path:
    """Make a folder with copies of the reader's files."""
    folder = desk / f"{Path(block.page).stem}-{block.number}"
    folder.mkdir()
    for path in desk.iterdir():
        if path.is_file() and path.name not in block.makes:
            shutil.copy(path, folder)
        elif path.name in ("IMAGES", "labelsTs"):
            shutil.copytree(path, folder / path.name)
    return folder


def lines_of(block: Block) -> str:
    """Return what Bash runs for the block."""
    language, text = blocks(block.page)[block.number]
    for number, small in block.smaller.items():
        assert number in text, number
        text = text.replace(number, small)
    if language == "python":
        return f"python - <<'PYTHON'\n{block.before}\n{text}PYTHON\n"
    return block.before + "\n" + re.sub(r"^\$ ", "", text, flags=re.MULTILINE)


@pytest.mark.long
@pytest.mark.parametrize("shown", BLOCKS, ids=lambda one: f"{one.page}-{one.number}")
def test_a_block_runs(shown: Block, desk: tuple[Path, dict[str, str]]) -> None:
    folder = folder_for(shown, desk[0])
    run(lines_of(shown), folder, desk[1])
    for name in shown.makes:
        assert (folder / name).exists(), name


@pytest.mark.long
def test_two_workstations(desk: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """Both on this machine, at addresses of their own."""
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind((HEAD, 0))
        address = f"{HEAD}:{free.getsockname()[1]}"
    place = "--object-store-memory=80000000 --node-ip-address="
    with tempfile.TemporaryDirectory(prefix="as-") as root, tempfile.TemporaryDirectory() as data:
        server = Postgres(found, Path(data))
        url = re.sub(":[^:]*@", "@", server.url)
        smaller = {
            "--port=6379 --num-gpus=1": f"--port={address[-5:]} --num-cpus=1 {place}{HEAD}",
            "first:6379 --num-gpus=1": f"first:6379 --num-cpus=1 {place}{NODES[0]}",
            "first:6379": address,
            "--trials 40": "--trials 3 -s search.steps=4",
            "/shared/run": "run",
            "--gpus-per-job 1 --cpus-per-job 8": "--gpus-per-job 0 --cpus-per-job 1",
            "postgresql://me@first/searches": url,
        }
        block = Block("docs/cluster.md", 0, smaller)
        folder = folder_for(block, desk[0])
        environment = {
            **desk[1],
            "HOME": root,
            "RAY_TMPDIR": root,
            "PGPASSWORD": PASSWORD,
            "PYTHONPATH": str(ROOT),
        }
        try:
            run(lines_of(block), folder, environment)
            run("archspec report run", folder, environment)
        finally:
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    if root in " ".join(process.cmdline()):
                        process.kill()
            server.stop()


@pytest.mark.long
def test_the_job_script(desk: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """Without SLURM, and twice, as if the job were requeued.

    `ray symmetric-run` ends all of Ray on its machine, so the cluster is there already.
    """
    pytest.importorskip("ray")
    sizes = {
        "--gpus-per-job 1 --cpus-per-job 8": "--gpus-per-job 0 --cpus-per-job 1",
        "--trials 400": "--trials 3",
        "--jobs 16": "--jobs 1",
        " space.yaml": " my-space.yaml",
    }
    with tempfile.TemporaryDirectory(prefix="as-") as root:
        cluster = RayCluster(Path(root), tmp_path, NODES[:1])
        try:
            port = cluster.address.rpartition(":")[2]
            block = Block("docs/cluster.md", 1, {**sizes, "6379": port})
            folder = folder_for(block, desk[0])
            for name, line in {"scontrol": f"echo {HEAD}", "srun": AFTER_DASHES}.items():
                (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n")
                (tmp_path / name).chmod(0o755)
            job = {
                "PATH": f"{tmp_path}:{desk[1]['PATH']}",
                "USER": "me",
                "SLURM_SUBMIT_DIR": str(folder),
                "SLURM_JOB_ID": str(os.getpid()),
                "SLURM_JOB_NODELIST": "n1",
                "SLURM_NNODES": "1",
                "SLURM_CPUS_PER_TASK": "1",
            }
            environment = {**desk[1], **cluster.environment, **job}
            run(lines_of(block), folder, environment)
            run(lines_of(block).replace("--trials 3", "--trials 4"), folder, environment)
            run("archspec report run", folder, environment)
        finally:
            cluster.stop()
            shutil.rmtree(f"/tmp/me-{os.getpid()}", ignore_errors=True)


ELSEWHERE = {
    "README.md": {0, 1, 3},
    "docs/cluster.md": {0, 1},
    "docs/install.md": {0, 1, 2},
    "docs/tutorial.md": None,
    "docs/run-cards.md": None,
    "docs/python.md": None,
}
"""Blocks that other tests run, or parse: `make` runs the first of README's and those of the
installation, `test_readme.py` two, the tests above two of the cluster's; `test_tutorial.py` and
`test_public_names.py` whole pages. The cards need data that are downloaded: `test_run_cards.py`
parses their commands and plans their networks."""


def test_every_block_is_run() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    run_here = {(block.page, block.number) for block in BLOCKS}
    for path in pages:
        page = path.relative_to(ROOT).as_posix()
        known = ELSEWHERE.get(page, set())
        for number in range(len(blocks(page))):
            assert known is None or number in known or (page, number) in run_here, (page, number)
