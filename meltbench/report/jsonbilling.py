"""Keys of the tables over a store: intelligence of many cells, cost and carbon, battery life."""

from __future__ import annotations

from meltbench.report.jsonanalysis import INTELLIGENCE
from meltbench.report.jsonshapes import Document, Key

_ROW = "tables[].rows[]"
_OUTSIDE = (
    Key("refused", "list", "Cells that are in no table."),
    Key("refused[].runs", "list", "Their runs."),
    Key("refused[].reason", "text", "Why."),
    Key("left_out", "integer", "Runs that are meant and invalid or failed, and were left out."),
)
_TABLE = (
    Key("tables", "list", "One for each origin, mode, workload and point, which are never put together."),
    Key("tables[].measured_by", "text", "meltbench, or the tool whose records were imported."),
    Key("tables[].mode", "text", "server, bench or in-process."),
    Key("tables[].workload", "text", "What was asked."),
    Key("tables[].point", "text", "Point of the workload; empty where it has none."),
    Key("tables[].flags", "list", "What forbids ranking the rows, such as meters of several scopes: `name: what`."),
    Key("tables[].rows", "list", "A cell each."),
)
INTELLIGENCE_TABLES = Document(
    "intelligence_tables",
    "meltbench intelligence SELECTION",
    "One object. A row has the keys of `meltbench intelligence RUN...`, and those that it is put in order by.",
    (
        Key("by", "text", "--by"),
        *_TABLE,
        Key("tables[].method", "text", "How answers were scored, which tables are apart by too."),
        Key(f"{_ROW}.group", "text", "What --by puts it together by."),
        Key(f"{_ROW}.measured_by", "text", "As of the table."),
        Key(f"{_ROW}.quantisation", "text", "Quantisation of the weights.", "the run does not say"),
        Key(f"{_ROW}.domain", "text", "Category of the items; empty for none.", "--by is another"),
        *(Key(f"{_ROW}{key.path[2:]}", key.type, key.meaning, key.null) for key in INTELLIGENCE.keys),
        *_OUTSIDE,
    ),
)
_CELL = (
    Key(f"{_ROW}.device", "text", "Name of the device.", "the run does not say"),
    Key(f"{_ROW}.model", "text", "Name of the model.", "the run does not say"),
    Key(f"{_ROW}.quantisation", "text", "Quantisation of its weights.", "the run does not say"),
    Key(f"{_ROW}.engine", "text", "Engine.", "the run does not say"),
    Key(f"{_ROW}.engine_version", "text", "Its version.", "the run does not say"),
    Key(f"{_ROW}.accelerator", "text", "What it computes on.", "it does not say"),
    Key(f"{_ROW}.runs", "list", "The runs of the cell."),
    Key(f"{_ROW}.scope", "text", "What the energies cover."),
    Key(f"{_ROW}.klass", "text", "Their error class.", "there are none"),
    Key(f"{_ROW}.flags", "list", "What to know before the row is put beside others: `name: what`."),
)


def _numbers(meaning: str) -> tuple[Key, ...]:
    path = f"{_ROW}.numbers"
    return (
        Key(path, "list", meaning),
        Key(f"{path}[].name", "text", "Which."),
        Key(f"{path}[].energy", "text", "gross or net."),
        Key(f"{path}[].unit", "text", "Its unit; of money empty where nobody named it."),
        Key(f"{path}[].value", "number", "Its value.", "there is a reason"),
        Key(f"{path}[].lo", "number", "Lower end of the 95 % interval.", "nothing tells it"),
        Key(f"{path}[].hi", "number", "Its upper end.", "nothing tells it"),
        Key(f"{path}[].n", "integer", "Runs behind it; of right answers, and of what was scored, queries."),
        Key(f"{path}[].method", "text", "How its interval was made, before the meter widened it."),
        Key(f"{path}[].reason", "text", "Why there is no value.", "there is a value"),
    )


COST = Document(
    "cost",
    "meltbench cost",
    "One object. Factors are stated and taken as exact; the intervals are those of the energies.",
    (
        Key("factors", "list", "What was stated of electricity."),
        Key("factors[].kind", "text", "price or carbon."),
        Key("factors[].name", "text", "What it is."),
        Key("factors[].value", "number", "Its value."),
        Key("factors[].unit", "text", "EUR/kWh, money/kWh where nobody named it, gCO2e/kWh."),
        Key("factors[].source", "text", "Who says so."),
        Key("factors[].year", "integer", "Of which year.", "it was stated on the command line"),
        *_TABLE,
        *_CELL,
        *_numbers("j_per_, cost_per_ and g_co2e_per_ 1000_output_tokens, 1000_queries and right_answer."),
        *_OUTSIDE,
    ),
)
BATTERY = Document(
    "battery",
    "meltbench battery",
    "One object. Of scope battery the numbers are such; of wall they are at least that, of module and soc at most.",
    (
        *_TABLE,
        *_CELL,
        Key(f"{_ROW}.battery_wh", "number", "What a full battery holds, Wh.", "nobody says it"),
        Key(f"{_ROW}.battery_source", "text", "Who says so."),
        *_numbers(
            "output_tokens_per_charge, prompts_per_charge, right_answers_per_charge, battery_life_h of generating, "
            "discharge_mah_per_token by the measured current.",
        ),
        *_OUTSIDE,
    ),
)


def _shares(path: str, meaning: str) -> tuple[Key, ...]:
    return (
        Key(path, "object", meaning),
        Key(f"{path}.value", "number", "Its value.", "there is a reason"),
        Key(f"{path}.lo", "number", "Lower end of the 95 % interval.", "it was chosen, or nothing tells it"),
        Key(f"{path}.hi", "number", "Its upper end.", "as above"),
        Key(f"{path}.n", "integer", "Items behind it."),
        Key(f"{path}.method", "text", "How its interval was made; chosen: it has none."),
        Key(f"{path}.reason", "text", "Why there is no value.", "there is a value"),
    )


_ARM = "tables[].arms[]"
_ROUTER = "tables[].routers[]"
ROUTE = Document(
    "route",
    "meltbench route",
    "One object. [cost.md](cost.md#local-or-cloud) says what the routers are.",
    (
        Key("limits", "object", "What an answer had to keep to."),
        *(
            Key(f"limits.{name}", "number", f"--max-{name.replace('_', '-')}", "none was given")
            for name in ("latency_s", "energy_j", "power_w")
        ),
        Key("cloud", "object", "Where the other queries go."),
        Key("cloud.j_per_query", "number", "--cloud-j-per-query", "it was not stated"),
        Key("cloud.accuracy", "number", "--cloud-accuracy", "it was not stated"),
        Key("cloud.runs", "list", "The run that stands for it; else empty."),
        *(
            Key(f"cloud.{name}", "text", meaning, "no run stands for it")
            for name, meaning in (
                ("model", "Its model."),
                ("device", "Its device."),
                ("scope", "What its energies cover."),
            )
        ),
        Key("cloud.klass", "text", "Their error class.", "no run stands for it, or it has no energy"),
        Key("tables", "list", "One for each origin, device, workload, point, mode and method of scoring."),
        Key("tables[].measured_by", "text", "meltbench, or the tool whose records were imported."),
        Key("tables[].device", "text", "The device."),
        *(key for key in _TABLE if key.path.rpartition(".")[2] in ("mode", "workload", "point")),
        Key("tables[].method", "text", "How answers were scored."),
        Key("tables[].n_items", "integer", "Items that every arm was asked."),
        *_shares("tables[].covered", "The share that at least one arm answers right within the limits."),
        Key("tables[].arms", "list", "The local models."),
        Key(f"{_ARM}.name", "text", "What it is called in the routers' names."),
        *(
            Key(f"{_ARM}{key.path.removeprefix(_ROW)}", key.type, key.meaning, key.null)
            for key in _CELL
            if not key.path.endswith((".device", ".flags"))
        ),
        *_shares(f"{_ARM}.right", "The share that it answers right."),
        *_shares(f"{_ARM}.right_within", "The share that it answers right within the limits."),
        Key(f"{_ARM}.mean_latency_s", "number", "Mean latency of its queries.", "one has none"),
        Key(f"{_ARM}.mean_energy_j", "number", "Mean energy of the items.", "one has none"),
        Key("tables[].routers", "list", "What becomes of the queries."),
        Key(f"{_ROUTER}.name", "text", "Which."),
        Key(f"{_ROUTER}.hypothetical", "true or false", "Whether it knows which answers are right."),
        *_shares(f"{_ROUTER}.local", "The share of queries whose answer is a local model's."),
        *_shares(f"{_ROUTER}.accuracy", "How often the answer that is taken is right."),
        *_shares(f"{_ROUTER}.j_per_query", "Energy of a query, here and in the cloud together, J."),
        *_shares(f"{_ROUTER}.saved", "The share of the cloud's energy that is saved; below 0 where more is spent."),
        Key(
            *(f"{_ROUTER}.break_even_cloud_j", "number", "What a query must take in the cloud for any to be saved, J."),
            "nothing stays local, or an energy is missing",
        ),
        Key(f"{_ROUTER}.sensitivity", "list", "The saving at other energies of the cloud; empty where none is stated."),
        Key(f"{_ROUTER}.sensitivity[].cloud_j_per_query", "number", "What a query would take there, J."),
        Key(f"{_ROUTER}.sensitivity[].saved", "number", "What would be saved.", "there is no energy"),
        Key(f"{_ROUTER}.sensitivity[].lo", "number", "Lower end of its 95 % interval.", "nothing tells it"),
        Key(f"{_ROUTER}.sensitivity[].hi", "number", "Its upper end.", "nothing tells it"),
        Key("tables[].flags", "list", "What to know before believing it: `name: what`."),
        *_OUTSIDE,
    ),
)
BILLING = (INTELLIGENCE_TABLES, COST, BATTERY, ROUTE)
