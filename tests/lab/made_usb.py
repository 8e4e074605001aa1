"""Stands at USB for instruments that are not there: the real PyMonsoon, pyusb and helper read a made Monsoon HVPM of
500 mA at 4 V, and a made FNB58 of 0.5 A at 5 V. It is run as sitecustomize, and takes usb.core.find's place alone."""

import os
import struct
import time
from array import array
from types import SimpleNamespace

import usb.core

VALUES = {0x45: 2, 0xC0: 32, 0xC4: 0, 0x1A: 36500, 0x1B: 6400}  # model, firmware, state, scales of its EEPROM


class Monsoon:
    """Packets of three samples, 5000 a second, after those that calibrate it. MADE_DROP_MS: as long a hole in them,
    once, one second after the start, as USB makes them when nobody reads; MADE_NOISE: only errors of USB."""

    def __init__(self):
        self.idVendor, self.idProduct, self.serial_number = 0x2AB9, 1, "20001"
        self.start, self.samples, self.skipped = 0.0, 0, False

    def ctrl_transfer(self, kind, request, value=0, index=0, data=None, timeout=None):
        if kind == 0xC0:
            return struct.pack("<I", VALUES.get(index & 0xFF, 0))
        if request == 2:
            self.start, self.samples = time.monotonic(), 0
        return 0

    def read(self, endpoint, size, timeout=None):
        drop = int(os.environ.get("MADE_DROP_MS", "0")) * 5
        if drop and not self.skipped and self.samples > 5000:
            self.samples, self.skipped = self.samples + drop, True
        due = self.start + self.samples / 5000
        time.sleep(max(0.0, due - time.monotonic()))
        out = bytearray(struct.pack("<HBB", 0, 0, 3))
        for n in range(self.samples, self.samples + 3):
            kind, coarse = ((0x10, 1000), (0x30, 7400))[n % 2] if n < 60 else (0x00, 1500)
            fine = {0x10: 1000, 0x30: 37500}.get(kind, 65000)
            volts = 16000  # of 62.5 uV x 4
            out += struct.pack(">8H", coarse, fine, coarse, fine, coarse, fine, volts, 0) + bytes([0, kind])
        self.samples += 3
        if os.environ.get("MADE_NOISE"):
            raise usb.core.USBError("Overflow", errno=75)
        return array("B", out.ljust(64, b"\0"))

    def detach_kernel_driver(self, interface):
        pass

    def set_configuration(self):
        pass

    def get_active_configuration(self):
        return {(0, 0): [SimpleNamespace(bEndpointAddress=2), SimpleNamespace(bEndpointAddress=0x81)]}


class Fnb58:
    """A packet of four samples each 40 ms once it was said hello to, with others between them."""

    def __init__(self):
        self.said, self.n = 0, 0

    def reset(self):
        pass

    def set_configuration(self):
        pass

    def is_kernel_driver_active(self, interface):
        return True

    def detach_kernel_driver(self, interface):
        assert interface in (0, 3)

    def __iter__(self):
        return iter([[SimpleNamespace(bInterfaceClass=8, bInterfaceNumber=0),
                      SimpleNamespace(bInterfaceClass=3, bInterfaceNumber=3)]])  # fmt: skip

    def get_active_configuration(self):
        out = SimpleNamespace(bEndpointAddress=3, write=self.write)
        return {(3, 0): [out, SimpleNamespace(bEndpointAddress=0x83, read=self.read)]}

    def write(self, words):
        assert len(words) == 64
        assert words[0] == 0xAA
        self.said += 1

    def read(self, size, timeout=None):
        assert (size, self.said >= 3) == (64, True)
        time.sleep(0.02)
        self.n += 1
        if self.n % 2:
            return bytes([0xAA, 3]) + bytes(62)
        sample = struct.pack("<II", 500_000, 50_000) + bytes(7)
        return bytes([0xAA, 4]) + 4 * sample + bytes(2)


def find(**asked):
    if os.environ.get("MADE_USB") == "monsoon" and "custom_match" in asked:
        device = Monsoon()
        return device if asked["custom_match"](device) else None
    if os.environ.get("MADE_USB") == "fnb58" and (asked.get("idVendor"), asked.get("idProduct")) == (0x2E3C, 0x5558):
        return Fnb58()
    if os.environ.get("MADE_USB") == "denied":
        raise usb.core.USBError("Access denied (insufficient permissions)", errno=13)
    return None


usb.core.find = find
