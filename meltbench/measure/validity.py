"""Named reasons against full validity: one table of threshold, resulting state and advice.

A run is ``valid`` when nothing speaks against it (a reason of that state is a note), ``degraded`` when its numbers hold
under a condition the reader must know, ``invalid`` when no aggregate may take it in unasked. That a target has no
energy counter is no reason: its energies are None and say so. docs/measuring.md shows this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meltbench.errors import InternalError
from meltbench.records import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meltbench.records import State


@dataclass(frozen=True)
class Rule:
    """When a reason applies, what it does to the run, and what to do about it."""

    threshold: str
    state: State
    advice: str


# Thresholds that code compares against; the table's words are made from them.
SUSPEND_S = 0.010  # both clocks are read within microseconds, and they drift apart in suspend alone
STEP_S = 0.050  # BOOTTIME is slewed with the wall clock, so that only steps and leap seconds part them
MISSED_SHARE = 0.05
LATE_SHARE = 0.20
SEEN_SHARE = 0.90
# Engines work in lock step: a core lost for a share x of the time slows every thread by about x. At 0.1 core the
# harm is bounded by 10 %, and it lies a decade above the probe's own use and the 10 ms tick over a run.
FOREIGN_CORES = 0.10
LOW_SOC_PERCENT = 20.0
SWAPPED_SHARE = 0.01
CROSS_CHECK_SHARE = 0.01  # two readers of one register; the gain, which is 5 %, is the same for both

_TABLE: dict[str, tuple[str, State, str]] = {
    "engine_failed": (
        "the engine died, never became ready, or answered none or only some of the requests",
        "invalid",
        "Read the engine's last lines with the run's log, and try a smaller context or model.",
    ),
    "model_damaged": (
        "the model's file is corrupt, truncated, or not the one that was promised; no engine was started",
        "invalid",
        "Fetch or copy the file again.",
    ),
    "command_failed": (
        "the command under test ended with a status other than 0, or by a signal",
        "invalid",
        "Run the command by hand on the target.",
    ),
    "oom_killed": (
        "the kernel, or Android's low-memory killer, killed the process under test for memory",
        "invalid",
        "Use a smaller model, context or KV type, or close other programs.",
    ),
    "aborted": (
        "the run was ended by the user",
        "invalid",
        "Run it again; --resume asks what was not scored.",
    ),
    "probe_killed": (
        "the probe was killed, or its journal has no end",
        "invalid",
        "Look for what kills programs on the target (memory, battery manager, power), then run again.",
    ),
    "journal_full": (
        "the journal reached its limit, or the target's disk was full",
        "invalid",
        "Free space on the target, sample more slowly, or make the run shorter.",
    ),
    "device_rebooted": (
        "the boot id changed, or CLOCK_BOOTTIME ran backwards",
        "invalid",
        "Run again; look for a watchdog or a loose supply.",
    ),
    "suspended": (
        f"CLOCK_BOOTTIME and CLOCK_MONOTONIC drifted apart by more than {SUSPEND_S * 1e3:.0f} ms",
        "invalid",
        "Keep the target awake: wake lock, systemd-inhibit, lid open.",
    ),
    "clock_stepped": (
        f"the wall clock moved against CLOCK_BOOTTIME by more than {STEP_S * 1e3:.0f} ms",
        "degraded",
        "Numbers hold, for they use CLOCK_BOOTTIME; do not align this run with other logs by wall time.",
    ),
    "clock_unsynced": (
        "an external meter's clock could not be tied to the target's",
        "degraded",
        "Repeat the clock exchange before and after the window over one open channel.",
    ),
    "remote_engine": (
        "the server that was asked is on another machine than the one that asks and is measured",
        "degraded",
        "Compare it with runs over the same network; energy is none of the server's unless energy_source says so.",
    ),
    "no_chat_template": (
        "messages were asked of a model that brings no chat template: the engine wrote them in a form of its own",
        "degraded",
        "Ask it with prompts (--set chat=false), or take a file of the model that brings its template.",
    ),
    "link_traffic": (
        "the target was asked over its link while it measured",
        "degraded",
        "Mend the link, or measure without --live: a run that nobody asks about says nothing until it has ended.",
    ),
    "watched": (
        "somebody read the journal on the machine that was measured meanwhile (--live, meltbench top)",
        "valid",
        "What that took of a processor is in the detail; leave it out for the finest of differences.",
    ),
    "request_failed": (
        "a timed request did not end ok",
        "invalid",
        "Read the request's detail; an aggregate over the rest would be of the easier ones.",
    ),
    "no_timed_request": (
        "a workload of requests has no timed one that ended ok",
        "invalid",
        "Read the first request's detail.",
    ),
    "truncated_output": (
        "a timed request gave another number of tokens than it was made to give",
        "degraded",
        "Make the engine ignore the end-of-text token, or enlarge its context.",
    ),
    "swapped": (
        f"more than {SWAPPED_SHARE:.0%} of what the process under test held was in a swap or zram",
        "degraded",
        "Its RSS hides that part, see peak_held_bytes; close other programs, or use a smaller model or context.",
    ),
    "sampler_starved": (
        f"a stream missed more than {MISSED_SHARE:.0%} of its deadlines or was late at more than {LATE_SHARE:.0%}",
        "degraded",
        "Sample more slowly, or leave the probe a core.",
    ),
    "low_coverage": (
        f"readings cover less than {SEEN_SHARE:.0%} of the run, or do not enclose it",
        "degraded",
        "Lengthen the idle windows, or look at the source's errors.",
    ),
    "stale_sensor": (
        "the energy source gave too few fresh values in the run or stood still, or the battery's updates are stopped",
        "degraded",
        "Make the run longer, or use a source that updates more often; `dumpsys battery reset` starts updates again.",
    ),
    "sensor_denied": (
        "a source exists and may not be read",
        "degraded",
        "Run as root, or give the probe's user leave to read it (for RAPL a udev rule).",
    ),
    "sensor_gated": (
        "a source answered only that it is powered off or busy",
        "degraded",
        "Wake the part it belongs to, or leave the source out of the profile.",
    ),
    "sensor_unreadable": (
        "the energy source is there, and its readings failed or could not be understood",
        "degraded",
        "Read the source's file by hand; look in the kernel's log, or choose another reader in the device profile.",
    ),
    "counter_reset": (
        "an energy counter fell without having wrapped, jumped up, or may have wrapped unseen",
        "degraded",
        "Energy is None over the reset; keep drivers loaded and sample within half the counter's range.",
    ),
    "cross_check_failed": (
        f"pyRAPL read another energy of the run than powercap did, by more than {CROSS_CHECK_SHARE:.0%} and its u",
        "degraded",
        "Read the domains by hand; look for a second zone of the same name, or a counter that jumps.",
    ),
    "uncalibrated_sensor": (
        "the energy source is a fuel gauge or a PMIC of unknown unit, sign and gain on this very device",
        "degraded",
        "A battery's gauge: meltbench devices calibrate NAME. A PMIC: against a meter, then gain_limit in its profile.",
    ),
    "trailing_average": (
        "the energy source gives means of the time before each reading, longer than half the run or of unknown length",
        "degraded",
        "Choose a source that gives the power of now or an energy counter, or make the run longer.",
    ),
    "aliased_gauge": (
        "the energy source was read in step with the tokens or the requests, so that it saw only a part of each",
        "degraded",
        "Read the source at another period in the device profile, one that shares no multiple with theirs.",
    ),
    "implausible_power": (
        "mean power is not above zero, below idling, or beyond the machine, or over 10% of samples are: no energy then",
        "invalid",
        "Check the unit, sign and scale of the source in the device profile.",
    ),
    "bridged_readings": (
        "some samples of the total are beyond what the machine can draw, and were bridged",
        "degraded",
        "Look at those samples (status implausible); a loose contact or a driver may be behind them.",
    ),
    "partial_total": (
        "the total leaves out a load that is there",
        "degraded",
        "Compare it only with totals of the same parts.",
    ),
    "background_load": (
        f"others used more than {FOREIGN_CORES:g} of a core over the run",
        "degraded",
        "Close other programs, and look at the machine's scheduled jobs.",
    ),
    "not_gated": (
        "the run started without waiting for a settled temperature",
        "degraded",
        "Use a workload or profile with a thermal gate for numbers that are compared.",
    ),
    "warm_start": (
        "the thermal gate timed out and the run started warm",
        "degraded",
        "Wait longer, cool the device, or raise the gate's target.",
    ),
    "charge_out_of_window": (
        "the battery was not within its profile's window of charge as the run began, or nobody told how full it was",
        "degraded",
        "Charge or drain it first, or set soc_percent of the profile's [gate].",
    ),
    "no_thermal_sensor": (
        "no zone gave a temperature at the thermal gate or in the run",
        "degraded",
        "Nothing to do on a virtual machine; elsewhere check that thermal zones are readable.",
    ),
    "throttled": (
        "the target reported throttling within the run, or its cap, its clock or its token rate fell",
        "degraded",
        "Cool the device, or report it as a sustained run; its regimes say which samples are of which state.",
    ),
    "frequency_capped": (
        "scaling_max_freq of a policy lay below the hardware's maximum in the run, or a flag said that it was capped",
        "degraded",
        "Lift the cap (governor, power profile), or wait for the device to cool.",
    ),
    "under_voltage": (
        "the target reports under-voltage within the run, or since it began",
        "invalid",
        "Use a stronger supply and a shorter cable.",
    ),
    "charging": (
        "the battery was charged, or its device fed from outside, while it was the energy source",
        "invalid",
        "Cut the supply: a hub with switched ports, or wireless adb.",
    ),
    "charge_state_contradictory": (
        "status, supply and current of the battery contradict each other",
        "invalid",
        "Trust the current after a calibration, not the status field.",
    ),
    "low_battery": (
        f"the battery was below {LOW_SOC_PERCENT:g} % within the run",
        "degraded",
        "Charge first: devices save power when the battery is low.",
    ),
    "imported": (
        "the run was made and recorded by another program, and taken over from its files",
        "degraded",
        "Compare it with runs of the same kind alone; measure again with meltbench for what it lacks.",
    ),
    "gpu_unused": (
        "the engine computed on the CPU only and the machine has a GPU",
        "valid",
        "Give a build for the GPU with --engine, if the GPU is what is to be measured.",
    ),
    "piece": (
        "the run asked a part of its items, the others being other runs' (--resume)",
        "valid",
        "Its totals are of that part alone; meltbench intelligence takes the runs of one cell together.",
    ),
    "settings_not_applied": (
        "a setting the run asked for was not in force",
        "invalid",
        "Look at conditions.settings: a path may be read-only or need root; --no-prepare leaves the device as it is.",
    ),
}
# What to do where an engine failed and did not die: by how its first request failed. Its own words are in the detail.
NOT_STARTED = "not_started"
_BY_CAUSE = {
    NOT_STARTED: "The program cannot be started: give a build for this target, and a folder that it may be run from.",
    "http_4": "Change what the server's words name, such as the model's name, a key, the context or a field.",
    "http_5": "Read the server's words and its own log; a smaller context or fewer requests at a time may help.",
    "http_": "Look whether a server of the runner's protocol answers there, and what its log says.",
    "engine_error": "Read the engine's words; where it is short of memory, take a smaller context or model.",
    "miscounted": "The server contradicts itself: look for another version of it.",
    "garbage": "The answer is not of the runner's protocol: look whether runner and version are the right ones.",
    "not_streamed": "The server must stream its answers: look for its setting, or take another runner.",
    "wrong_": "The server took another prompt or cache than it was asked to: look for another version of it.",
    "timeout": "Give it more time (--set timeout_s=600), shorter answers, or a smaller model.",
    "refused": "Nobody listens there: look whether the server runs, and at which port.",
}
TABLE: dict[str, Rule] = {code: Rule(*row) for code, row in _TABLE.items()}

_RANK: dict[State, int] = {"valid": 0, "degraded": 1, "invalid": 2}


def reason(code: str, detail: str, cause: str = "") -> Reason:
    """The reason of that name with what was seen, and the advice for its ``cause`` where there is one of its own.
    Raises InternalError for a code that is not in the table."""
    rule = TABLE.get(code)
    if rule is None:
        raise InternalError(f"no rule for the validity reason {code!r}", hint="add it to meltbench.measure.validity")
    by_cause = (advice for start, advice in _BY_CAUSE.items() if code == "engine_failed" and cause.startswith(start))
    return Reason(code, rule.state, detail, next(by_cause, rule.advice))


def state(reasons: Iterable[Reason]) -> State:
    """The worst state any reason gives; valid when there is none."""
    return max((one.state for one in reasons), key=_RANK.__getitem__, default="valid")


def table_markdown() -> str:
    """The table as docs/measuring.md shows it."""
    rows = [f"| `{code}` | {rule.threshold} | {rule.state} | {rule.advice} |" for code, rule in TABLE.items()]
    return "\n".join(["| reason | applies when | state | advice |", "|---|---|---|---|", *rows]) + "\n"
