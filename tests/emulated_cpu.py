"""Kernels of instruction sets that this CPU lacks, executed by Bochs' CPU emulator.

The machine code runs in place: the emulated Sapphire Rapids sees the memory of this process at the
same virtual addresses. Bochs executes AVX-VNNI and AVX-512. It is built without AMX, so its
tile instructions raise #UD, upon which they are decoded and executed here as Intel's Software
Developer's Manual describes them.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from pathlib import Path
from typing import Any

import bochscpu
import bochscpu.cpu
import bochscpu.memory
import numpy as np
from bochscpu import _bochscpu

PAGE, REGION = 1 << 12, 1 << 30
TABLES = STACK = 64  # pages
SAPPHIRE_RAPIDS = 0x806F8  # what CPUID says in its leaf 1
INVALID_OPCODE = 6
MXCSR = 0x9FC0  # as the library runs kernels: denormals are zero, exceptions masked
XCR0 = 0x600E7


class Pages:
    """Zeroed memory of this process."""

    def __init__(self, count: int) -> None:
        self.memory = mmap.mmap(-1, count * PAGE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))


def choose_model() -> None:
    """The Python binding has no choice of CPU model: its parameter is set in Bochs itself."""
    library = ctypes.CDLL(_bochscpu.__file__)
    simulator = ctypes.c_void_p.in_dll(library, "SIM").value
    find = library._ZN13bx_real_sim_c14get_param_enumEPKcP10bx_param_c
    find.restype = ctypes.c_void_p
    find.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    assign = library._ZN14bx_param_num_c15set_initial_valEl
    assign.argtypes = [ctypes.c_void_p, ctypes.c_int64]
    # Its place in the list of models of bochscpu-python 0.3.1; `Cpu` checks what came of it.
    assign(find(simulator, b"cpu.model", None), 28)


class Tiles:
    """The tile registers and the instructions of AMX-TILE and AMX-INT8."""

    def __init__(self) -> None:
        self.config = bytes(64)
        self.tiles = np.zeros((8, 16, 64), np.uint8)

    def shape(self, tile: int) -> tuple[int, int]:
        """Rows and bytes of a row."""
        row_bytes = struct.unpack_from("<16H", self.config, 16)
        assert self.config[0] == 1, "no palette"
        assert self.config[48 + tile] > 0, "a tile without rows"
        return self.config[48 + tile], row_bytes[tile]

    def configure(self, config: bytes) -> None:
        rows, row_bytes = config[48:64], struct.unpack_from("<16H", config, 16)
        assert config[0] == 1
        assert not any(config[1:16])
        assert not any(rows[8:])
        assert not any(row_bytes[8:])
        assert max(rows) <= 16
        assert max(row_bytes) <= 64
        self.config = config
        self.tiles[:] = 0

    def release(self) -> None:
        self.config = bytes(64)
        self.tiles[:] = 0

    def load(self, tile: int, address: int, stride: int) -> None:
        rows, row_bytes = self.shape(tile)
        self.tiles[tile] = 0
        for row in range(rows):
            data = ctypes.string_at(address + row * stride, row_bytes)
            self.tiles[tile, row, :row_bytes] = np.frombuffer(data, np.uint8)

    def store(self, tile: int, address: int, stride: int) -> None:
        rows, row_bytes = self.shape(tile)
        for row in range(rows):
            data = self.tiles[tile, row, :row_bytes].tobytes()
            ctypes.memmove(address + row * stride, data, row_bytes)

    def dot(self, c: int, a: int, b: int) -> None:
        """TDPBSSD: signed bytes by signed bytes."""
        (rows, row_bytes), (a_rows, a_bytes), (b_rows, b_bytes) = map(self.shape, (c, a, b))
        assert len({a, b, c}) == 3
        assert a_rows == rows
        assert b_bytes == row_bytes
        assert a_bytes == 4 * b_rows
        assert row_bytes % 4 == 0
        x = self.tiles[a, :rows, :a_bytes].view(np.int8).astype(np.int64)
        w = self.tiles[b, :b_rows, :b_bytes].view(np.int8).astype(np.int64)
        w = w.reshape(b_rows, b_bytes // 4, 4).transpose(0, 2, 1).reshape(a_bytes, -1)
        sums = self.tiles[c, :rows, :row_bytes].view(np.int32)
        sums[:] = (sums + x @ w).astype(np.int32)

    def execute(self, code: bytes, registers: Any) -> bool:
        """Whether `code` is one whole instruction of ours; if so its effect has happened."""
        if len(code) < 5 or code[0] != 0xC4 or code[1] & 0x1F != 2 or code[2] & 0x84:
            return False
        opcode, mod, reg, rm = code[3], code[4] >> 6, code[4] >> 3 & 7, code[4] & 7
        prefix, source = code[2] & 3, ~(code[2] >> 3) & 15
        if (opcode, mod, prefix) == (0x5E, 3, 3) and len(code) == 5:
            self.dot(reg, rm, source)
        elif (opcode, prefix, code[4]) == (0x49, 0, 0xC0) and len(code) == 5:
            self.release()
        elif opcode in (0x49, 0x4B) and mod != 3 and (found := self.operand(code, registers)):
            address, stride = found
            if (opcode, prefix, reg) == (0x49, 0, 0):
                self.configure(ctypes.string_at(address, 64))
            elif (opcode, prefix) == (0x4B, 3):
                self.load(reg, address, stride)
            elif (opcode, prefix) == (0x4B, 2):
                self.store(reg, address, stride)
            else:
                return False
        else:
            return False
        return True

    @staticmethod
    def operand(code: bytes, registers: Any) -> tuple[int, int] | None:
        """Address without, and value of, the index register."""
        names = [
            "rax",
            "rcx",
            "rdx",
            "rbx",
            "rsp",
            "rbp",
            "rsi",
            "rdi",
            "r8",
            "r9",
            "r10",
            "r11",
            "r12",
            "r13",
            "r14",
            "r15",
        ]
        mod, base, at, stride = code[4] >> 6, code[4] & 7, 5, 0
        if base == 4 and len(code) > 5:
            index = (code[5] >> 3 & 7) | (0 if code[1] & 0x40 else 8)
            base, at = code[5] & 7, 6
            if index != 4:
                stride = getattr(registers, names[index]) << (code[5] >> 6)
        if base == 5 and mod == 0:
            return None  # no base register: not how compilers address these operands
        if len(code) != at + (0, 1, 4)[mod]:
            return None
        offset = int.from_bytes(code[at:], "little", signed=True)
        address = getattr(registers, names[base | (0 if code[1] & 0x20 else 8)]) + offset
        return address, stride - (1 << 64) if stride >> 63 else stride


class Cpu:
    """One core in 64-bit mode that calls functions of this process."""

    def __init__(self) -> None:
        choose_model()
        self.session = bochscpu.Session()
        self.session.missing_page_handler = self.map_page
        self.tables, self.stack, self.end = Pages(TABLES), Pages(STACK), Pages(1)
        self.regions: list[int] = []  # of a gigabyte, at the physical gigabytes 1, 2, …
        self.used_tables = 1
        self.tiles = Tiles()
        self.tile_instructions = 0
        self.end.memory[0] = 0xF4  # hlt
        for page in range(TABLES):
            bochscpu.memory.page_insert(page * PAGE, self.tables.address + page * PAGE)
        code = Pages(1)
        code.memory[:10] = bytes.fromhex("b8010000000fa2c30000")  # mov eax, 1; cpuid; ret
        assert self.call(code.address) == SAPPHIRE_RAPIDS, "another CPU model than was wanted"

    def entry(self, table: int, index: int) -> int:
        return struct.unpack_from("<Q", self.tables.memory, table * PAGE + 8 * index)[0]

    def set_entry(self, table: int, index: int, value: int) -> None:
        struct.pack_into("<Q", self.tables.memory, table * PAGE + 8 * index, value)

    def add_regions(self) -> None:
        """Pages of a gigabyte for all memory that this process has by now."""
        for line in Path("/proc/self/maps").read_text().splitlines():
            begin, end = (int(text, 16) for text in line.split()[0].split("-"))
            if end >= 1 << 47:
                continue
            for region in range(begin // REGION, (end - 1) // REGION + 1):
                if region in self.regions:
                    continue
                self.regions.append(region)
                if not self.entry(0, region >> 9):
                    self.set_entry(0, region >> 9, self.used_tables * PAGE | 7)
                    self.used_tables += 1
                table = self.entry(0, region >> 9) // PAGE
                self.set_entry(table, region & 511, len(self.regions) * REGION | 0x87)

    def map_page(self, physical: int) -> None:
        region = self.regions[physical // REGION - 1]
        page = physical & -PAGE
        bochscpu.memory.page_insert(page, region * REGION + page % REGION)

    def state(self, address: int, arguments: tuple[int, ...]) -> Any:
        def segment(selector: int, attributes: int, base: int = 0) -> Any:
            result = bochscpu.Segment()
            result.present, result.selector, result.base = True, selector, base
            result.limit, result.attr = 0xFFFFFFFF, attributes
            return result

        state = bochscpu.State()
        bochscpu.cpu.set_long_mode(state)
        state.cr0, state.cr3, state.cr4 = 0x80050033, 0, 0x40620
        state.xcr0, state.mxcsr, state.mxcsr_mask, state.fpcw = XCR0, MXCSR, 0xFFFF, 0x37F
        state.rflags, state.rip = 2, address
        top = STACK * PAGE - 64
        struct.pack_into("<Q", self.stack.memory, top - 8, self.end.address)
        state.rsp = self.stack.address + top - 8
        for name, value in zip(["rdi", "rsi", "rdx", "rcx", "r8"], arguments, strict=False):
            setattr(state, name, value)
        state.cs = segment(0x10, 0xA09B)
        for name in ("ds", "es", "ss", "gs"):
            setattr(state, name, segment(0x18, 0xC093))
        thread = ctypes.c_uint64()
        ctypes.CDLL(None).syscall(158, 0x1003, ctypes.byref(thread))  # arch_prctl(ARCH_GET_FS)
        state.fs = segment(0x18, 0xC093, thread.value)
        return state

    def call(self, address: int, *arguments: int) -> int:
        """Calls a function that takes up to five integers or pointers; its integer result."""
        self.add_regions()
        cpu = self.session.cpu
        cpu.state = self.state(address, arguments)
        stopped: list[tuple[int, int]] = []
        hook = bochscpu.Hook()

        def exception(session: Any, _cpu: int, vector: int, _error: int) -> None:
            stopped.append((vector, session.cpu.rip))
            session.stop()

        def halt(session: Any, _cpu: int) -> None:
            stopped.append((-1, 0))
            session.stop()

        hook.exception, hook.hlt = exception, halt
        while True:
            stopped.clear()
            self.session.run([hook])
            vector, after = stopped[-1]
            if vector == -1:
                return int(cpu.rax)
            # Bochs has stepped over an instruction that it does not know.
            if vector != INVALID_OPCODE or not any(
                self.tiles.execute(ctypes.string_at(after - size, size), cpu)
                for size in range(5, 11)
            ):
                raise RuntimeError(f"exception {vector} before {after:#x}")
            self.tile_instructions += 1
