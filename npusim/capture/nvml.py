"""What the board says of itself: energy counter, clocks and power limit, through NVML."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from npusim.capture.gpu import Row, Unavailable, first_line
from npusim.capture.timing import Call

SETTLE = 1.0


@dataclass(frozen=True)
class Spent:
    """Energy of some seconds of work.

    Attributes
    ----------
    joules, seconds : float
    calls : int
        How often the work was done meanwhile.
    sm_mhz : int or None
        Clock of the compute units half way through [MHz].
    """

    joules: float
    seconds: float
    calls: int
    sm_mhz: int | None

    @property
    def watts(self) -> float:
        """Mean power [W]."""
        return self.joules / self.seconds


class Board:
    """One board as NVML sees it."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle

    def joules(self) -> float:
        """Return the energy counter [J].

        Raises
        ------
        Unavailable
            The board has none.
        """
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3
        except self._nvml.NVMLError as error:
            raise Unavailable(f"the board has no energy counter: {first_line(error)}") from None

    def sm_mhz(self) -> int | None:
        """Return the clock of the compute units [MHz], None where the board does not tell."""
        mhz = self._ask("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_SM)
        return None if mhz is None else int(mhz)

    def driver(self) -> str | None:
        """Return the version of the driver."""
        try:
            version = self._nvml.nvmlSystemGetDriverVersion()
        except self._nvml.NVMLError:
            return None
        return version.decode() if isinstance(version, bytes) else str(version)

    def state(self) -> Row:
        """Return power limit [W], clocks now and at most [Hz] and temperature [degrees C]."""
        nvml = self._nvml
        sm, memory = nvml.NVML_CLOCK_SM, nvml.NVML_CLOCK_MEM
        asked: dict[str, tuple[float, str, tuple[Any, ...]]] = {
            "power_limit_w": (1e-3, "nvmlDeviceGetEnforcedPowerLimit", ()),
            "sm_clock_hz": (1e6, "nvmlDeviceGetClockInfo", (sm,)),
            "memory_clock_hz": (1e6, "nvmlDeviceGetClockInfo", (memory,)),
            "sm_clock_max_hz": (1e6, "nvmlDeviceGetMaxClockInfo", (sm,)),
            "memory_clock_max_hz": (1e6, "nvmlDeviceGetMaxClockInfo", (memory,)),
            "temperature_c": (1.0, "nvmlDeviceGetTemperature", (nvml.NVML_TEMPERATURE_GPU,)),
        }
        found = {name: (scale, self._ask(f, *given)) for name, (scale, f, given) in asked.items()}
        return {name: None if v is None else scale * v for name, (scale, v) in found.items()}

    def _ask(self, function: str, *arguments: Any) -> Any:
        """Return an answer of NVML, None where this board or driver has none."""
        try:
            return getattr(self._nvml, function)(self._handle, *arguments)
        except self._nvml.NVMLError:
            return None


def open_board(torch: Any) -> Board:
    """Return the board that PyTorch computes on.

    Raises
    ------
    Unavailable
        No NVML, or the board cannot be told among several.
    """
    if torch.version.hip is not None:
        raise Unavailable("NVML is NVIDIA's: no energy counter is read on AMD GPUs")
    try:
        nvml = import_module("pynvml")
    except ImportError:
        raise Unavailable("needs NVML for Python: pip install nvidia-ml-py") from None
    try:
        nvml.nvmlInit()
        # CUDA_VISIBLE_DEVICES renumbers devices for PyTorch, not for NVML: match by identity.
        device = torch.cuda.get_device_properties(torch.cuda.current_device())
        uuid = getattr(device, "uuid", None)
        if uuid is not None:
            name = str(uuid) if str(uuid).startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
            return Board(nvml, nvml.nvmlDeviceGetHandleByUUID(name))
        if nvml.nvmlDeviceGetCount() == 1:
            return Board(nvml, nvml.nvmlDeviceGetHandleByIndex(0))
    except nvml.NVMLError as error:
        raise Unavailable(f"NVML does not answer: {first_line(error)}") from None
    raise Unavailable("several boards, and this PyTorch does not tell which is which")


def spend(torch: Any, board: Board, call: Call, seconds: float) -> Spent:
    """Repeat work for some seconds and return the energy it took.

    The counter follows power with a lag, so the work goes on for `SETTLE` before it is read.

    Parameters
    ----------
    torch : module
    board : Board
    call : callable
        The work; each call is waited for.
    seconds : float
        How long [s].
    """
    settled = time.perf_counter() + SETTLE
    while time.perf_counter() < settled:
        call()
        torch.cuda.synchronize()
    before, start, calls, mhz = board.joules(), time.perf_counter(), 0, None
    while (took := time.perf_counter() - start) < seconds:
        call()
        if mhz is None and took > seconds / 2:
            mhz = board.sm_mhz()  # asked while the device works
        torch.cuda.synchronize()
        calls += 1
    took = time.perf_counter() - start
    return Spent(board.joules() - before, took, calls, mhz)


def idle(board: Board, seconds: float) -> Spent:
    """Return the energy of some seconds in which nothing is asked of the board."""
    time.sleep(SETTLE)
    before, start = board.joules(), time.perf_counter()
    time.sleep(seconds)
    took = time.perf_counter() - start
    return Spent(board.joules() - before, took, 0, board.sm_mhz())
