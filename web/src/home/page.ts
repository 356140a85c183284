// `/`: all batteries. Only the lines in sight are in the document, so 10,000 are as quick as ten.
import { fill, h, setText } from "../dom";
import { Fleet } from "../fleet";
import type { Battery } from "../fleet";
import { count } from "../format";
import { openPage } from "../shell";
import { FILTERS } from "./attention";
import type { Filter } from "./attention";
import { COLUMNS, classOf, compare } from "./columns";
import { firstSteps } from "./empty";
import { Lines } from "./lines";

interface Sort {
  key: string;
  down: boolean;
}

const PAINT_MS = 250;
const SORT_MS = 1000;
/** Who needs somebody comes first, until another order is asked for; the rest by name. */
const URGENT_FIRST: Sort = { key: "attention", down: true };

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
  private readonly lines = new Lines();
  private readonly table: HTMLTableElement;
  private readonly heads = new Map<string, HTMLElement>();
  private readonly chips = new Map<Filter, HTMLButtonElement>();
  private shown: Battery[] = [];
  private sort = URGENT_FIRST;
  private filter = FILTERS[0]!;
  private sortedAt = 0;
  private sortedVersion = -1;

  constructor(private readonly fleet: Fleet) {
    this.readAddress();
    for (const filter of FILTERS) {
      const chip = h("button", { type: "button", onclick: () => this.choose({ filter }) }, filter.title);
      this.chips.set(filter, chip);
    }
    this.bar = h(
      "div",
      { class: "bar", role: "search" },
      this.search,
      h("span", { class: "group", role: "group", "aria-label": "Filter" }, ...this.chips.values()),
      this.summary,
    );
    this.table = h("table", {}, h("thead", {}, this.head()), this.lines.body);
    this.scroll = h(
      "div",
      { class: "scroll fleet", tabindex: "0", role: "region", "aria-label": "Batteries", hidden: true },
      this.table,
    );
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
        const down = this.sort.key === column.key ? !this.sort.down : Boolean(column.falls);
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

  private choose(change: { sort?: Sort; filter?: Filter }): void {
    this.sort = change.sort ?? this.sort;
    this.filter = change.filter ?? this.filter;
    for (const [filter, chip] of this.chips) chip.setAttribute("aria-pressed", String(filter === this.filter));
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
    this.filter = FILTERS.find(({ key }) => key === asked.get("show")) ?? this.filter;
    const [key, down] = (asked.get("sort") ?? "").split(".");
    if (COLUMNS.some((column) => column.key === key)) this.sort = { key: key!, down: down === "down" };
  }

  private writeAddress(): void {
    const said = new URLSearchParams();
    const { key, down } = this.sort;
    if (this.search.value) said.set("q", this.search.value);
    if (this.filter !== FILTERS[0]) said.set("show", this.filter.key);
    if (key !== URGENT_FIRST.key || down !== URGENT_FIRST.down) said.set("sort", key + (down ? ".down" : ""));
    const query = said.toString();
    history.replaceState(null, "", query ? `/?${query}` : "/");
  }

  private arrange(): void {
    this.sortedAt = performance.now();
    this.sortedVersion = this.fleet.version;
    const all = [...this.fleet.batteries.values()];
    this.countChips(all);
    const wanted = this.search.value.trim().toLowerCase();
    const isFound = (battery: Battery) => !wanted || `${battery.name} ${battery.title ?? ""}`.toLowerCase().includes(wanted);
    this.shown = this.sorted(all.filter((battery) => isFound(battery) && this.filter.passes(battery)));
    const of = this.shown.length === all.length ? "" : ` of ${count(all.length)}`;
    const stored = this.shown.some((battery) => battery.isStored) ? "; values in italics are the last that were stored" : "";
    setText(this.summary, `${count(this.shown.length)}${of} ${all.length === 1 ? "battery" : "batteries"}${stored}`);
    this.showEmpty();
  }

  private sorted(batteries: Battery[]): Battery[] {
    const column = COLUMNS.find((one) => one.key === this.sort.key)!;
    const keyed = batteries.map((battery) => ({ battery, value: column.value(battery) }));
    const sign = this.sort.down ? -1 : 1;
    keyed.sort((a, b) => compare(a.value, b.value, sign) || compare(a.battery.name, b.battery.name, 1));
    return keyed.map((one) => one.battery);
  }

  /** Says on each filter how many batteries of the fleet it has. */
  private countChips(all: Battery[]): void {
    for (const [filter, chip] of this.chips) {
      if (filter === FILTERS[0]) continue;
      const number = all.filter(filter.passes).length;
      const text = `${filter.title} ${count(number)}`;
      if (chip.textContent === text) continue;
      fill(chip, `${filter.title} `, h("span", { class: number ? filter.level : "soft" }, count(number)));
    }
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
    this.table.setAttribute("aria-rowcount", String(this.shown.length + 1));
    const seen = this.lines.paint(this.scroll, this.shown, refresh);
    if (refresh) this.fleet.askStored(seen);
  }
}
