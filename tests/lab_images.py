"""Makes what the laboratory's targets are built from: root file systems without Python, kernels and disks of guests.

Packages of the distribution are unpacked and nothing of them is run, so an arm64 tree is made on any machine. They come
from where this machine's own apt takes them. Each artefact lies in a folder of the lab that is named after how it was
made, and is there whole or not at all: it is made beside its place and renamed.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

# What the targets need on the controller's machine: program, package.
TOOLS = {
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "nft": "nftables",
    "qemu-aarch64-static": "qemu-user-static",
    "qemu-system-aarch64": "qemu-system-arm",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mkfs.ext4": "e2fsprogs",
}
# Of a browser any of these will do, with its driver; browser_kit.py has what tests do with them.
BROWSERS, DRIVER = ("chromium", "chromium-browser", "google-chrome"), "chromedriver"
BROWSER_PACKAGES = ("chromium", "chromium-driver")
# sshd, a shell, and the libraries that programs of the distribution's compilers ask for. No Python; Perl is taken away.
PACKAGES = ("openssh-server", "openssh-sftp-server", "busybox-static", "dash", "libstdc++6", "libgomp1", "iproute2")
SUPERFLUOUS = ("usr/share", "usr/lib/*/perl*", "usr/lib/*/gconv", "usr/bin/*perl*", "usr/lib/python3*", "usr/bin/py3*")
DISK_BYTES = 3 << 30  # of a guest; a file with holes
PHONE_ROOT = "phone"  # where a guest's disk has the root file system of a phone
# Android's adbd, shell and userland as this release packages them, and a library that a stock engine asks for.
PHONE, PHONE_SUITE = ("adbd", "mksh", "toybox", "libgomp1"), "trixie"
ADBD = Path("apex/com.android.adbd/bin/adbd")  # where Android has it
SHELL = Path("apex/lab/sh")  # of the made programs too, whatever stands at /system/bin/sh
ROOTS = ("su", "login", "passwd", "reboot", "halt", "poweroff")  # of toybox; a phone has none of them, or another
ADMIN = "/usr/local/sbin:/usr/sbin:/sbin"  # where apt puts sshd, ip and mkfs, and a plain user's PATH does not look


@dataclass(frozen=True)
class Kernel:
    """The package of a guest's kernel, and what of its modules a guest loads as it starts."""

    package: str
    modules: tuple[str, ...]


_VIRTIO = ("virtio_pci", "virtio_blk", "virtio_net", "sch_netem")
# By architecture: the smallest kernel with virtio, ext4 and netem, and one with USB at both ends and no wire between.
KERNELS = {
    "arm64": Kernel("linux-image-cloud-arm64", _VIRTIO),
    "amd64": Kernel("linux-image-amd64", (*_VIRTIO, "crc32c_generic", "ext4", "dummy_hcd", "usb_f_fs")),
}


def which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{ADMIN}")


def run(*argv: str | Path, **env: str) -> str:
    path = {"PATH": f"{os.environ.get('PATH', '')}:{ADMIN}"}
    words = [str(word) for word in argv]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **path, **env}, timeout=300)
    if done.returncode:
        raise RuntimeError(f"{words[0]} ended with {done.returncode}:\n{(done.stderr or done.stdout)[-2000:]}")
    return done.stdout


def tools() -> str:
    """Install the programs that are not there. Raises RuntimeError where that may not be done."""
    _install([package for program, package in TOOLS.items() if which(program) is None])
    return " ".join(TOOLS)


def browser() -> str:
    """Install a browser and its driver where there is none. Raises RuntimeError where that may not be done."""
    if which(DRIVER) is None or not any(map(which, BROWSERS)):
        _install(BROWSER_PACKAGES)
    return " ".join(filter(None, (next(filter(None, map(which, BROWSERS))), which(DRIVER))))


def _install(missing: Sequence[str]) -> None:
    """Packages of the distribution, by its own tool."""
    if not missing:
        return
    if os.geteuid() != 0 or which("apt-get") is None:
        raise RuntimeError(f"{' '.join(missing)}: not installed, and only root with apt could do that here")
    run("apt-get", "update", "-q")
    words = ("apt-get", "install", "-y", "-q", "--no-install-recommends", *missing)
    run(*words, DEBIAN_FRONTEND="noninteractive")


def sources() -> tuple[str, list[str]]:
    """The release that this machine runs, and apt's sources of it as lines: the archive and its updates."""
    told = Path("/etc/os-release").read_text()
    (release,) = (line.partition("=")[2] for line in told.splitlines() if line.startswith("VERSION_CODENAME="))
    listed = run("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)", "Created-By: Packages")
    rows = {tuple(line.split()) for line in listed.splitlines()}
    own = sorted(row for row in rows if len(row) == 3 and row[1].startswith(release) and row[2] == "main")
    if not own:
        raise RuntimeError(f"apt here knows no source of {release}")
    return release, [f"deb {uri} {suite} {part}" for uri, suite, part in own]


def unpacked(where: Path, arch: str, *packages: str, suite: str = "") -> None:
    """These packages and what they depend on, unpacked below ``where``; of another release where it is named.

    That one comes from the same archive, and never becomes a source of this machine.
    """
    release, lines = sources()
    if suite:
        archives = {line.split()[1] for line in lines if line.split()[2] == release}
        release, lines = suite, [f"deb {uri} {suite} main" for uri in sorted(archives)]
    words = ["mmdebstrap", "--quiet", f"--arch={arch}", "--variant=extract", f"--include={','.join(packages)}"]
    run(*words, release, where, *lines)


def _place(lab: Path, what: str, *makers: Callable[..., object], text: str = "") -> Path:
    """The artefact's folder: its name changes with the code that makes it and with what that is given."""
    told = "".join(inspect.getsource(one) for one in makers) + text
    return lab / f"{what}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def native() -> str:
    """Debian's name of this machine's architecture."""
    return run("dpkg", "--print-architecture").strip()


def rootfs(lab: Path, arch: str) -> Path:
    """The folder of a root file system of that architecture, made where it is not there."""
    target = _place(lab, f"rootfs-{arch}", rootfs, text=repr((PACKAGES, SUPERFLUOUS)))
    if target.is_dir():
        return target
    with tempfile.TemporaryDirectory(dir=lab) as folder:
        root = Path(folder) / "root"
        unpacked(root, arch, *PACKAGES)
        for found in [path for glob in SUPERFLUOUS for path in root.glob(glob)]:
            shutil.rmtree(found) if found.is_dir() and not found.is_symlink() else found.unlink()
        emulator = () if arch == native() else ("qemu-aarch64-static",)
        for name in run(*emulator, root / "bin/busybox", "--list").split():
            if not any((root / place / name).is_symlink() or (root / place / name).exists() for place in _PLACES):
                (root / "usr/bin" / name).symlink_to("/bin/busybox")
        if not (root / "bin/sh").exists():
            (root / "bin/sh").symlink_to("dash")
        for place in ("proc", "sys", "run", "root", "home", "var/log", "var/empty", "etc/ssh"):
            (root / place).mkdir(parents=True, exist_ok=True)
        root.rename(target)
    return target


def phone(lab: Path, arch: str) -> Path:
    """The folder of a phone's root file system: adbd, mksh as /system/bin/sh, toybox, and no other program.

    A busybox is its init, in /lab, which only root may enter.
    """
    target = _place(lab, f"phone-{arch}", phone, text=repr((PHONE, PHONE_SUITE, ADBD, SHELL, ROOTS)))
    if target.is_dir():
        return target
    with tempfile.TemporaryDirectory(dir=lab) as folder:
        full, root = Path(folder) / "full", Path(folder) / "root"
        unpacked(full, arch, *PHONE, suite=PHONE_SUITE)
        for place in ("lab", ADBD.parent, SHELL.parent, "system/bin", "usr/lib", "etc", "dev", "proc", "sys"):
            (root / place).mkdir(parents=True)
        (root / "lab").chmod(0o700)
        shutil.copy2(rootfs(lab, arch) / "bin/busybox", root / "lab/busybox")
        (full / "usr/lib/android-sdk/platform-tools/adbd").rename(root / ADBD)
        (full / "usr/bin/mksh").rename(root / SHELL)
        (root / "system/bin/sh").symlink_to(f"../../{SHELL}")
        (full / "usr/bin/toybox").rename(root / "system/bin/toybox")
        for libraries in (full / "usr/lib").glob("*-linux-gnu"):
            libraries.rename(root / "usr/lib" / libraries.name)
        for place in [path for path in full.glob("usr/lib*/ld-linux-*") if path.is_symlink()]:  # to the loader
            (root / place.relative_to(full).parent).mkdir(exist_ok=True)
            place.rename(root / place.relative_to(full))
        for name, where in (("bin", "system/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")):
            (root / name).symlink_to(where)
        emulator = () if arch == native() else ("qemu-aarch64-static",)
        (loader,) = root.glob("usr/lib/*/ld-linux-*")  # its C library is newer than this machine's may be
        for name in run(*emulator, loader, "--library-path", loader.parent, root / "system/bin/toybox").split():
            if name not in ROOTS and not (root / "system/bin" / name).exists():
                (root / "system/bin" / name).symlink_to("toybox")
        root.rename(target)
    return target


_PLACES = ("bin", "sbin", "usr/bin", "usr/sbin")
# A disk that was never started takes what makes it a machine of its own from a tar archive, the second disk. It is
# written out at once: a reset soon after would leave empty files.
_FIRST = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /new
/bin/busybox mount -t proc proc /proc
for module in {modules}; do /bin/busybox insmod /$module.ko; done
/bin/busybox mount -t devtmpfs dev /dev
until [ -b /dev/vda ] && [ -b /dev/vdb ]; do /bin/busybox sleep 0.05; done
/bin/busybox mount -t ext4 /dev/vda /new
[ -e /new/etc/inittab ] || {{ /bin/busybox tar -xf /dev/vdb -C /new; /bin/busybox sync; }}
/bin/busybox umount /proc
exec /bin/busybox switch_root /new /bin/busybox init
"""


def kernel(lab: Path, arch: str) -> Path:
    """The folder of what a guest of that architecture is started with: vmlinuz, initramfs."""
    root, busybox = rootfs(lab, arch), rootfs(lab, native()) / "bin/busybox"
    text = repr((KERNELS[arch], root.name)) + _FIRST
    target = _place(lab, f"kernel-{arch}", kernel, _initramfs, _with_needs, text=text)
    if target.is_dir():
        return target
    with tempfile.TemporaryDirectory(dir=lab) as folder:
        work, made = Path(folder), Path(folder) / "made"
        made.mkdir()
        unpacked(work / "kernel", arch, KERNELS[arch].package)
        (image,) = (work / "kernel/boot").glob("vmlinuz-*")
        image.rename(made / "vmlinuz")
        _initramfs(work, made / "initramfs", busybox, root / "bin/busybox", KERNELS[arch].modules)
        made.rename(target)
    return target


def disk(lab: Path, arch: str, *, with_phone: bool = False) -> Path:
    """The disk of a guest of that architecture, never written to: each guest has its own overlay.

    ``with_phone``: it has the root file system of a phone too, in a folder.
    """
    roots = {".": rootfs(lab, arch)} | ({PHONE_ROOT: phone(lab, arch)} if with_phone else {})
    text = repr((DISK_BYTES, *(root.name for root in roots.values())))
    target = _place(lab, f"disk-{arch}", disk, text=text)
    if target.is_dir():
        return target / "disk.img"
    with tempfile.TemporaryDirectory(dir=lab) as folder:
        root, made = Path(folder) / "root", Path(folder) / "made"
        made.mkdir()
        for where, source in roots.items():
            run("cp", "-a", source, root / where)
        with (made / "disk.img").open("wb") as image:
            image.truncate(DISK_BYTES)
        run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1", "-d", root, made / "disk.img")
        made.rename(target)
    return target / "disk.img"


def _module(folder: Path, name: str) -> Path:
    (found,) = (path for path in folder.rglob("*.ko") if path.stem.replace("-", "_") == name)
    return found


def _with_needs(folder: Path, name: str, known: dict[str, Path]) -> None:
    """A module after those that it says it depends on."""
    module = _module(folder, name)
    told = re.search(rb"\0depends=([^\0]*)\0", module.read_bytes())
    for other in told[1].decode().replace("-", "_").split(",") if told and told[1] else ():
        if other not in known:
            _with_needs(folder, other, known)
    known[name] = module


def _initramfs(work: Path, made: Path, busybox: Path, theirs: Path, modules: tuple[str, ...]) -> None:
    """What the kernel starts: it loads the drivers of disk and network, and hands over to the disk."""
    first = work / "first"
    (first / "bin").mkdir(parents=True)
    (first / "dev").mkdir()
    shutil.copy2(theirs, first / "bin/busybox")
    needed: dict[str, Path] = {}
    for name in modules:
        _with_needs(work / "kernel/lib/modules", name, needed)
    for name, module in needed.items():
        shutil.copy2(module, first / f"{name}.ko")
    (first / "init").write_text(_FIRST.format(modules=" ".join(needed)))
    (first / "init").chmod(0o755)
    names = "\n".join(str(path.relative_to(first)) for path in [first, *sorted(first.rglob("*"))])
    with made.open("wb") as out:
        subprocess.run([busybox, "cpio", "-o", "-H", "newc"], cwd=first, input=names.encode(), stdout=out, check=True)


# What `make lab` makes, by what it is called there.
ARTEFACTS: dict[str, Callable[[Path], object]] = {
    "root file system": lambda lab: rootfs(lab, native()),
    "arm64 root file system": lambda lab: rootfs(lab, "arm64"),
    "phone": lambda lab: phone(lab, native()),
    "arm64 guest": lambda lab: (kernel(lab, "arm64"), disk(lab, "arm64")),
    "arm64 guest with a phone": lambda lab: disk(lab, "arm64", with_phone=True),
    "guest with a phone at its USB": lambda lab: (kernel(lab, "amd64"), disk(lab, "amd64", with_phone=True)),
}


def main() -> None:
    lab = Path(sys.argv[1])
    lab.mkdir(parents=True, exist_ok=True)
    print(tools())
    print(browser())
    for make in ARTEFACTS.values():
        print(make(lab))


if __name__ == "__main__":
    main()
