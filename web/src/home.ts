// `/`: all batteries. Only the lines in sight are in the document, so 10,000 are as quick as ten.
import { fill, h, setText } from "./dom";
import { Fleet, ageOf, rowsOf } from "./fleet";
import type { Battery } from "./fleet";
import { NONE, count, duration, fixed, percent } from "./format";
import { badge, openPage, phaseLevel, trustLevel } from "./shell";

interface Column {
  key: string;
  title: string;
  unit?: string;
  number?: boolean;
  wide?: boolean;
  value: (battery: Battery) => number | string | null;
  show: (cell: HTMLElement, battery: Battery) => void;
}

const ROW_PX = 30;
/** Lines drawn beyond those in sight, so that scrolling shows no gaps. */
const MARGIN = 12;
/** Letters at the end of a name that are never cut off. */
const SHOWN_END = 12;
const PAINT_MS = 250;
const SORT_MS = 1000;
/** After so long without a row a battery counts as silent. */
const SILENT_S = 60;

const plain = (of: (battery: Battery) => string) => (cell: HTMLElement, battery: Battery) =>
  setText(cell, of(battery));

function withSpread(mean: number | null | undefined, std: number | null | undefined) {
  return (cell: HTMLElement) => {
    const spread = typeof std === "number" ? ` ± ${percent(2 * std)}` : "";
    const text = percent(mean) + spread;
    if (cell.textContent === text) return;
    fill(cell, percent(mean), spread && h("span", { class: "plus" }, spread));
  };
}

/** A name that is cut in its middle where it is long: names of a fleet often differ at their ends. */
function bothEnds(name: string): Node[] {
  const end = Math.max(0, name.length - SHOWN_END);
  return [h("span", { class: "start" }, name.slice(0, end)), h("span", {}, name.slice(end))];
}

const COLUMNS: Column[] = [
  {
    key: "name",
    title: "Battery",
    value: (b) => b.name.toLowerCase(),
    show: (cell, b) => {
      if (cell.dataset.name === b.name) return;
      cell.dataset.name = b.name;
      fill(cell, h("a", { href: `/dashboard/${encodeURIComponent(b.name)}` }, ...bothEnds(b.name)));
      cell.title = b.title && b.title !== b.name ? `${b.name}: ${b.title}` : b.name;
    },
  },
  {
    key: "charge",
    title: "Charge",
    unit: "%",
    number: true,
    value: (b) => b.live?.state_of_charge ?? null,
    show: (cell, b) => {
      const charge = b.live?.state_of_charge ?? null;
      const text = percent(charge);
      if (cell.textContent === text) return;
      const level = h("i");
      level.style.width = `${Math.min(100, Math.max(0, 100 * (charge ?? 0)))}%`;
      fill(cell, charge !== null && h("span", { class: "meter", "aria-hidden": "true" }, level), h("span", { class: "figure" }, text));
    },
  },
  {
    key: "health",
    title: "Health ± 2σ",
    unit: "%",
    number: true,
    value: (b) => b.live?.state_of_health ?? null,
    show: (cell, b) => withSpread(b.live?.state_of_health, b.live?.state_of_health__std)(cell),
  },
  {
    key: "voltage",
    title: "Voltage",
    unit: "V",
    number: true,
    value: (b) => b.live?.voltage ?? null,
    show: plain((b) => fixed(b.live?.voltage, 3)),
  },
  {
    key: "current",
    title: "Current",
    unit: "A",
    number: true,
    value: (b) => b.live?.current ?? null,
    show: plain((b) => fixed(b.live?.current, 2)),
  },
  {
    key: "temperature",
    title: "Temp.",
    unit: "°C",
    number: true,
    value: (b) => b.live?.temperature ?? null,
    show: plain((b) => fixed(b.live?.temperature, 1)),
  },
  { key: "rows", title: "Rows", number: true, wide: true, value: rowsOf, show: plain((b) => count(rowsOf(b))) },
  {
    key: "age",
    title: "Age",
    number: true,
    value: ageOf,
    show: plain((b) => duration(ageOf(b))),
  },
  {
    key: "state",
    title: "Estimator",
    value: (b) => STATES.indexOf(stateOf(b)),
    show: (cell, b) => {
      const state = stateOf(b);
      const error = b.live?.estimator_error ?? "";
      const mark = `${b.isStored} ${state} ${error}`;
      if (cell.dataset.mark === mark) return;
      cell.dataset.mark = mark;
      const level = state === "none" ? "none" : error && state === "live" ? "warn" : phaseLevel(state);
      if (b.isStored) return fill(cell, h("span", { class: "soft" }, "not known"));
      fill(cell, state === "none" ? NONE : badge(state.replace("_", " "), level, error));
    },
  },
  {
    key: "trust",
    title: "Trust",
    value: (b) => TRUST.indexOf(b.live?.estimator_trust ?? "none"),
    show: (cell, b) => {
      const trust = b.live?.estimator_trust ?? "";
      if (cell.dataset.mark === trust) return;
      cell.dataset.mark = trust;
      fill(cell, trust ? badge(trust, trustLevel(trust)) : NONE);
    },
  },
  {
    key: "alerts",
    title: "Alerts",
    value: (b) => b.alerts,
    show: (cell, b) => {
      const mark = `${b.alerts} ${b.gravest}`;
      if (cell.dataset.mark === mark) return;
      cell.dataset.mark = mark;
      const level = b.gravest === "critical" ? "bad" : b.gravest === "warning" ? "warn" : "none";
      fill(cell, b.alerts ? badge(`${b.alerts} ${b.gravest}`, level) : "");
    },
  },
];

const TRUST = ["diverged", "suspect", "healthy", "none"];
const STATES = ["broken", "starting", "catching_up", "live", "none"];

function stateOf(battery: Battery): string {
  return battery.live?.estimator_phase ?? "none";
}

const FILTERS: [string, string, (battery: Battery) => boolean][] = [
  ["all", "All", () => true],
  ["alerts", "Alerts", (b) => b.alerts > 0],
  ["broken", "Broken", (b) => stateOf(b) === "broken" || Boolean(b.live?.estimator_error)],
  ["suspect", "Not trusted", (b) => b.live?.estimator_trust === "suspect" || b.live?.estimator_trust === "diverged"],
  ["silent", "Silent", (b) => (ageOf(b) ?? Infinity) > SILENT_S],
  ["none", "No estimator", (b) => !b.isStored && stateOf(b) === "none"],
];

export function openHome(): void {
  const page = openPage("Batteries");
  const fleet = new Fleet();
  const view = new FleetView(fleet);
  page.main.append(h("h1", { class: "hidden" }, "Batteries"), view.bar, view.scroll, view.empty);
  fleet.start((state) => page.link(state));
  view.start();
}

class FleetView {
  readonly bar: HTMLElement;
  readonly scroll: HTMLElement;
  readonly empty = h("section", { class: "card empty", hidden: true });
  private readonly search = h("input", {
    type: "search",
    placeholder: "Search names  ( / )",
    "aria-label": "Search batteries by name",
  });
  private readonly summary = h("span", { class: "soft push", role: "status" });
  private readonly body = h("tbody");
  private readonly table: HTMLTableElement;
  private readonly heads = new Map<string, HTMLElement>();
  private readonly chips = new Map<string, HTMLButtonElement>();
  private readonly lines: HTMLTableRowElement[] = [];
  private readonly before = gap();
  private readonly after = gap();
  private shown: Battery[] = [];
  private sort = { key: "name", down: false };
  private filter = "all";
  private sortedAt = 0;
  private sortedVersion = -1;
  private painted = "";

  constructor(private readonly fleet: Fleet) {
    this.readAddress();
    const chips = FILTERS.map(([key, text]) => {
      const chip = h("button", { type: "button", onclick: () => this.choose({ filter: key }) }, text);
      this.chips.set(key, chip);
      return chip;
    });
    this.bar = h(
      "div",
      { class: "bar", role: "search" },
      this.search,
      h("span", { class: "group", role: "group", "aria-label": "Filter" }, ...chips),
      this.summary,
    );
    this.table = h("table", {}, h("thead", {}, this.head()), this.body);
    this.scroll = h(
      "div",
      { class: "scroll fleet", tabindex: "0", role: "region", "aria-label": "Batteries", hidden: true },
      this.table,
    );
    this.body.append(this.before);
    this.body.append(this.after);
    this.search.addEventListener("input", () => this.choose({}));
    this.scroll.addEventListener("scroll", () => this.paint(), { passive: true });
    window.addEventListener("resize", () => this.paint());
    document.addEventListener("keydown", (event) => {
      if (event.key === "/" && !(event.target instanceof HTMLInputElement)) {
        event.preventDefault();
        this.search.focus();
      }
    });
  }

  start(): void {
    this.choose({});
    setInterval(() => {
      if (document.hidden) return;
      if (this.fleet.version !== this.sortedVersion && performance.now() - this.sortedAt > SORT_MS) this.arrange();
      this.paint(true);
    }, PAINT_MS);
  }

  private head(): HTMLElement {
    const heads = COLUMNS.map((column) => {
      const sort = () => {
        const down = this.sort.key === column.key ? !this.sort.down : Boolean(column.number);
        this.choose({ sort: { key: column.key, down } });
      };
      const button = h("button", { type: "button", class: "plain", onclick: sort }, column.title);
      const unit = column.unit && h("span", { class: "unit" }, ` ${column.unit}`);
      const head = h("th", { scope: "col", class: classOf(column) }, button, unit);
      this.heads.set(column.key, head);
      return head;
    });
    return h("tr", {}, ...heads);
  }

  private choose(change: { sort?: { key: string; down: boolean }; filter?: string }): void {
    this.sort = change.sort ?? this.sort;
    this.filter = change.filter ?? this.filter;
    for (const [key, chip] of this.chips) chip.setAttribute("aria-pressed", String(key === this.filter));
    for (const [key, head] of this.heads) {
      const order = this.sort.down ? "descending" : "ascending";
      head.setAttribute("aria-sort", key === this.sort.key ? order : "none");
    }
    this.writeAddress();
    this.arrange();
    this.paint(true);
  }

  /** Sorting and filter stand in the address, so that a view can be kept and shared. */
  private readAddress(): void {
    const asked = new URLSearchParams(location.search);
    this.search.value = asked.get("q") ?? "";
    const filter = asked.get("show");
    if (FILTERS.some(([key]) => key === filter)) this.filter = filter!;
    const [key, down] = (asked.get("sort") ?? "").split(".");
    if (COLUMNS.some((column) => column.key === key)) this.sort = { key: key!, down: down === "down" };
  }

  private writeAddress(): void {
    const said = new URLSearchParams();
    if (this.search.value) said.set("q", this.search.value);
    if (this.filter !== "all") said.set("show", this.filter);
    if (this.sort.key !== "name" || this.sort.down) said.set("sort", this.sort.key + (this.sort.down ? ".down" : ""));
    const query = said.toString();
    history.replaceState(null, "", query ? `/?${query}` : "/");
  }

  private arrange(): void {
    this.sortedAt = performance.now();
    this.sortedVersion = this.fleet.version;
    const wanted = this.search.value.trim().toLowerCase();
    const passes = FILTERS.find(([key]) => key === this.filter)![2];
    const found: Battery[] = [];
    for (const battery of this.fleet.batteries.values()) {
      const isFound = !wanted || `${battery.name} ${battery.title ?? ""}`.toLowerCase().includes(wanted);
      if (isFound && passes(battery)) found.push(battery);
    }
    const column = COLUMNS.find((one) => one.key === this.sort.key)!;
    const keyed = found.map((battery) => ({ battery, value: column.value(battery) }));
    const sign = this.sort.down ? -1 : 1;
    keyed.sort((a, b) => compare(a.value, b.value, sign) || compare(a.battery.name, b.battery.name, 1));
    this.shown = keyed.map((one) => one.battery);
    const all = this.fleet.batteries.size;
    const of = this.shown.length === all ? "" : ` of ${count(all)}`;
    const stored = this.shown.some((battery) => battery.isStored) ? "; values in italics are the last that were stored" : "";
    setText(this.summary, `${count(this.shown.length)}${of} ${all === 1 ? "battery" : "batteries"}${stored}`);
    this.showEmpty();
  }

  private showEmpty(): void {
    const { fleet } = this;
    const hasAny = fleet.batteries.size > 0;
    this.scroll.hidden = !hasAny;
    this.bar.hidden = !hasAny;
    const said = hasAny ? "" : fleet.isListed ? "none" : (fleet.problem ?? "asking");
    if (this.empty.dataset.said === said) return;
    this.empty.dataset.said = said;
    this.empty.hidden = hasAny || said === "asking";
    if (said === "none") fill(this.empty, ...firstSteps());
    else if (said) fill(this.empty, h("h2", {}, "Batteries cannot be listed"), h("p", {}, said));
  }

  /** Puts the lines in sight into the document, and their newest values into them. */
  private paint(refresh = false): void {
    if (this.scroll.hidden) return;
    const top = Math.floor(this.scroll.scrollTop / ROW_PX);
    const fits = Math.ceil(this.scroll.clientHeight / ROW_PX);
    const first = Math.max(0, Math.min(top - MARGIN, this.shown.length - 1));
    const last = Math.min(this.shown.length, top + fits + MARGIN);
    const place = `${first} ${last} ${this.shown.length}`;
    if (place === this.painted && !refresh) return;
    this.painted = place;
    this.table.setAttribute("aria-rowcount", String(this.shown.length + 1));
    this.before.cells[0]!.style.height = `${first * ROW_PX}px`;
    this.after.cells[0]!.style.height = `${(this.shown.length - last) * ROW_PX}px`;
    const lines = Math.max(0, last - first);
    while (this.lines.length < lines) this.addLine();
    while (this.lines.length > lines) this.lines.pop()!.remove();
    this.lines.forEach((line, at) => this.show(line, first + at));
    if (refresh) this.fleet.askStored(this.shown.slice(top, top + fits));
  }

  private addLine(): void {
    const line = h("tr", {}, ...COLUMNS.map((column) => h("td", { class: classOf(column) })));
    this.lines.push(line);
    this.body.insertBefore(line, this.after);
  }

  private show(line: HTMLTableRowElement, at: number): void {
    const battery = this.shown[at];
    if (!battery) return;
    line.setAttribute("aria-rowindex", String(at + 2));
    line.toggleAttribute("data-stored", battery.isStored);
    line.title = battery.isStored ? "The last values that were stored; nothing of this battery is live." : "";
    COLUMNS.forEach((column, place) => column.show(line.cells[place]!, battery));
  }
}

function classOf(column: Column): string | null {
  const classes = [column.number && "n", column.wide && "wide", column.key === "name" && "name"];
  return classes.filter(Boolean).join(" ") || null;
}

function gap(): HTMLTableRowElement {
  return h("tr", { class: "gap", "aria-hidden": "true" }, h("td", { colspan: COLUMNS.length }));
}

/** What is not known comes last, whichever way it is sorted. */
function compare(a: number | string | null, b: number | string | null, sign: number): number {
  if (a === b) return 0;
  if (a === null) return 1;
  if (b === null) return -1;
  return a < b ? -sign : sign;
}

function firstSteps(): Node[] {
  const origin = location.origin;
  const command = (text: string) => h("pre", { tabindex: "0" }, text);
  return [
    h("h2", {}, "No batteries yet"),
    h("p", {}, "A battery appears here with its first row or its metadata. Any of these brings one:"),
    h(
      "ol",
      {},
      h("li", {}, h("a", { href: "/register" }, "Upload metadata or a file of rows"), " from this browser."),
      h(
        "li",
        {},
        "Stream a simulated cell, or a file of your own, from a terminal:",
        command(
          `rovicli simulate cell.h5 --rows 5000 --estimator cell.json\n` +
            `rovicli --url ${origin} metadata cell.h5\n` +
            `rovicli --url ${origin} register cell 0 cell.json\n` +
            `rovicli --url ${origin} stream cell.h5 --speedup max`,
        ),
      ),
      h(
        "li",
        {},
        "Send rows from a program of yours:",
        command(
          `curl ${origin}/db/upload/cell --json \\\n  '[{"test_time": 0, "voltage": 3.7, "current": -1.0, "temperature": 25}]'`,
        ),
        h("a", { href: "/docs/" }, "The whole interface"),
      ),
    ),
  ];
}
