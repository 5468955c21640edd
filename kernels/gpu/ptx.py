#!/usr/bin/env python3
"""Compiles every kernels/*/*.cu to PTX, which the program passes to the driver.

    ptx.py           writes cuda/ptx/<name>.75.ptx; also <name>.80.ptx and <name>.90a.ptx if the text differs from that of the next
                     older target in more than the `.target` line
    ptx.py --check   compares with the existing files, prints the resources that ptxas reports for each kernel, fails if one spills

Needs no CUDA toolkit: NVRTC and ptxas are packages on PyPI, of a pinned version, in a virtual environment under target/.
Exit code 3: the packages cannot be installed.
"""

import argparse
import ctypes
import glob
import pathlib
import re
import subprocess
import sys
import tempfile

VERSION = "12.2.140"  # PTX 8.2, which drivers of release 535 and newer read
PACKAGES = [f"nvidia-cuda-{part}-cu12=={VERSION}" for part in ("nvrtc", "runtime", "nvcc")]
TARGETS = ("75", "80", "90a")  # `a`: only for GPUs of exactly that capability
KERNELS = pathlib.Path(__file__).resolve().parent.parent
PTX = KERNELS / "gpu" / "cuda" / "ptx"  # everything in it is generated; kernels/gpu/cuda/ptx.rs reads it
ENVIRONMENT = KERNELS.parent / "target" / "ptx"


def packages():
    """The folder with the packages' files."""
    found = glob.glob(str(ENVIRONMENT / "lib" / "python3*" / "site-packages" / "nvidia"))
    ready = ENVIRONMENT / f"ready-{VERSION}"
    if not (found and ready.exists()):
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
            pip = [ENVIRONMENT / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, "--no-deps", *PACKAGES], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{', '.join(PACKAGES)}: installation failed: {error}", file=sys.stderr)
            sys.exit(3)
        ready.touch()
        found = glob.glob(str(ENVIRONMENT / "lib" / "python3*" / "site-packages" / "nvidia"))
    return pathlib.Path(found[0])


class Compiler:
    """NVRTC. It receives sources by name, so that no path of this machine appears in the output."""

    def __init__(self, folder):
        self.library = ctypes.CDLL(str(folder / "cuda_nvrtc" / "lib" / "libnvrtc.so.12"))
        self.library.nvrtcGetErrorString.restype = ctypes.c_char_p
        self.options = [b"--std=c++17", b"--extra-device-vectorization", b"-I" + bytes(folder / "cuda_runtime" / "include")]
        self.headers = {path.name: path.read_bytes() for path in sorted(KERNELS.glob("*/*.cuh"))}

    def call(self, name, *arguments):
        code = getattr(self.library, name)(*arguments)
        if code and name != "nvrtcCompileProgram":
            raise SystemExit(f"{name}: {self.library.nvrtcGetErrorString(code).decode()}")
        return code

    def text(self, program, what):
        size = ctypes.c_size_t()
        self.call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self.call(f"nvrtcGet{what}", program, buffer)
        return buffer.value.decode()

    def compile(self, path, target):
        program = ctypes.c_void_p()
        strings = lambda values: (ctypes.c_char_p * len(values))(*values)
        names, texts = [name.encode() for name in self.headers], list(self.headers.values())
        source = (path.read_bytes(), path.name.encode(), len(names), strings(texts), strings(names))
        self.call("nvrtcCreateProgram", ctypes.byref(program), *source)
        options = [f"--gpu-architecture=compute_{target}".encode(), *self.options]
        failed = self.call("nvrtcCompileProgram", program, len(options), strings(options))
        log = self.text(program, "ProgramLog").strip()
        if log:
            print(log, file=sys.stderr)
        if failed:
            raise SystemExit(f"{path.relative_to(KERNELS)}: does not compile for compute_{target}")
        made = self.text(program, "PTX")
        self.call("nvrtcDestroyProgram", ctypes.byref(program))
        return slim(made)


def slim(text):
    """PTX without comments, empty lines and indentation: a third smaller, and independent of the machine."""
    lines = (re.sub(r"//.*", "", line).strip() for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines if line)


def own_texts(texts):
    """Of the texts by target, oldest first: those that differ from the one before in more than the `.target` line."""
    before = None
    for target, text in texts.items():
        general = text.replace(f".target sm_{target}\n", ".target\n")
        if general != before:
            yield target, text
        before = general


def resources(ptxas, text, target):
    """The resources that ptxas reports for each kernel: name, registers, bytes of shared memory, bytes of spilled registers."""
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(text)
        file.flush()
        command = [ptxas, "-v", f"-arch=sm_{target}", "-o", "/dev/null", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    for kernel in done.stderr.split("Compiling entry function '")[1:]:
        number = lambda pattern: sum(int(n) for n in re.findall(pattern, kernel))
        spilled = number(r"(\d+) bytes spill")
        yield kernel.split("'")[0], number(r"Used (\d+) registers"), number(r"(\d+) bytes smem"), spilled


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    folder = packages()
    compiler = Compiler(folder)
    wrong = []
    wanted = {}
    for path in sorted(KERNELS.glob("*/*.cu")):
        texts = {target: compiler.compile(path, target) for target in TARGETS}
        wanted |= {f"{path.stem}.{target}.ptx": text for target, text in own_texts(texts)}
        for target, text in texts.items():
            for name, registers, shared, spilled in resources(folder / "cuda_nvcc" / "bin" / "ptxas", text, target):
                print(f"sm_{target} {name:24} {registers:3} registers {shared:6} bytes shared {spilled:4} bytes spilled")
                if spilled:
                    wrong.append(f"{name} spills {spilled} bytes for sm_{target}")
    found = {path.name: path.read_text() for path in PTX.glob("*")}
    if check:
        for name in sorted(wanted.keys() | found.keys()):
            if wanted.get(name) != found.get(name):
                wrong.append(f"{PTX.relative_to(KERNELS) / name} differs from the kernels' PTX; run `make ptx`")
    else:
        PTX.mkdir(exist_ok=True)
        for name in found.keys() - wanted.keys():
            (PTX / name).unlink()
        for name, text in wanted.items():
            (PTX / name).write_text(text)
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
