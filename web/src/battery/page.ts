// `/dashboard/{name}`: one battery, from its newest row to its whole life.
import { Refusal, explain, getJson } from "../api";
import { fill, h, setText } from "../dom";
import { follow, serverNow } from "../live";
import type { Live, LinkState } from "../live";
import { openPage } from "../shell";
import { newestStored } from "../stored";
import { Cycles } from "./cycles";
import { Estimates } from "./estimates";
import { Estimators } from "./estimator";
import { loadAlerts, loadMetadata } from "./facts";
import { History } from "./history";
import { Histograms } from "./histograms";
import { savePicture } from "./picture";
import type { Page as Rows } from "./series";
import { Newest, numbers, places } from "./series";
import { Tiles } from "./tiles";
import { Toolbar } from "./toolbar";
import { Verdict } from "./verdict";
import { View } from "./view";
import type { Axis } from "./view";

const NEWEST_MS = 2000;
const SLOW_MS = 10_000;
const STATUS_MS = 3000;
/** How often estimates are asked for again after rows or estimators got on: they come a little later. */
const SETTLING = 3;

export function openBattery(name: string): void {
  new BatteryPage(name).start();
}

class BatteryPage {
  private readonly page;
  private readonly view = new View();
  private readonly tiles = new Tiles();
  private readonly history: History;
  private readonly estimates: Estimates;
  private readonly histograms: Histograms;
  private readonly cycles: Cycles;
  private readonly estimators: Estimators;
  private readonly verdict: Verdict;
  private readonly toolbar: Toolbar;
  private readonly title: HTMLElement;
  private readonly problem = h("p", { class: "note warn", role: "status", hidden: true });
  private readonly metadata = h("section", { class: "card" });
  private readonly alerts = h("section", { class: "card" });
  private readonly charts = h("section", { class: "card" });
  private readonly parts: HTMLElement;
  private readonly loads = { history: new Newest(), estimates: new Newest(), histograms: new Newest(), cycles: new Newest() };
  private newest: Live | null = null;
  private link: LinkState = "connecting";
  private epoch: number | null = null;
  /** The newest row that is known of, from the hub or the live socket. */
  private newestSeq = 0;
  /** The newest row that was known of when history was last asked for. */
  private loadedSeq = 0;
  private slowAt = 0;
  private seen = "";
  private settling = 0;

  constructor(private readonly name: string) {
    this.page = openPage(name);
    this.history = new History(name, this.view, () => this.load());
    this.estimates = new Estimates(name, this.view);
    this.estimates.onAsk(() => this.load());
    this.histograms = new Histograms(name, this.view);
    this.cycles = new Cycles(name);
    this.verdict = new Verdict(name);
    const choose = (estimator: string) => {
      this.estimates.choose(estimator);
      this.loadPart("estimates");
    };
    this.estimators = new Estimators(name, choose, (status) => this.verdict.takeStatus(status));
    this.toolbar = new Toolbar(name, this.view, {
      axis: (axis) => void this.setAxis(axis),
      picture: () => this.savePicture(),
    });
    this.title = h("span", { class: "soft" });
    fill(this.charts, h("h2", { class: "hidden" }, "History"), this.history.note, this.toolbar.element, this.history.element, this.history.choice);
    this.parts = h(
      "div",
      { class: "columns" },
      this.estimators.element,
      h("div", { class: "columns" }, this.alerts, this.metadata),
    );
    const head = h("div", { class: "bar" }, h("h1", {}, name), this.title);
    this.page.main.append(head, this.problem, this.verdict.element, this.tiles.element, this.charts, this.estimates.element, this.histograms.element, this.cycles.element, this.parts);
  }

  start(): void {
    this.view.readAddress();
    const asked = new URLSearchParams(location.search).get("axis");
    void this.begin(asked === "seq" || asked === "received" || asked === "test_time" ? asked : null);
    follow(`?battery=${encodeURIComponent(this.name)}`, {
      battery: (_, live) => live && this.take(live),
      link: (state) => this.takeLink(state),
    });
    setInterval(() => this.tiles.tick(), 500);
    void this.repeat(STATUS_MS, () => this.estimators.load());
    void this.repeat(SLOW_MS, () => this.showStored());
    void this.repeat(2 * STATUS_MS, () => loadAlerts(this.name, this.alerts, (alerts) => this.verdict.takeAlerts(alerts)));
    void loadMetadata(this.name, this.metadata).then((title) => setText(this.title, title && title !== this.name ? title : ""));
  }

  /** Does something again and again, while the page is looked at. */
  private async repeat(everyMs: number, act: () => Promise<void>): Promise<void> {
    try {
      if (!document.hidden) await act();
    } catch (error) {
      this.tell(error);
    }
    setTimeout(() => void this.repeat(everyMs, act), everyMs);
  }

  /** Says what went wrong; that the hub is away stands above the page already. */
  private tell(error: unknown): void {
    this.say(error instanceof Refusal && error.status === 0 ? "" : explain(error));
  }

  private say(text: string): void {
    setText(this.problem, text);
    this.problem.hidden = text === "";
  }

  /** Waits for the first row, then shows the battery's life. */
  private async begin(asked: Axis | null): Promise<void> {
    try {
      const newest = await this.askNewest();
      if (newest) {
        const axis = asked ?? (await this.usualAxis(newest));
        const kept = { zoom: this.view.zoom, width: this.view.width, since: this.view.since };
        this.view.axis = axis;
        this.view.extent = await this.extent(axis, newest);
        Object.assign(this.view, kept);
        this.view.onChange(() => this.changed());
        this.showParts(true);
        this.say("");
        this.changed();
        void this.repeat(NEWEST_MS, () => this.advance());
        // Cycles are counted a while after their rows came.
        void this.repeat(SLOW_MS, async () => this.loadPart("cycles"));
        return;
      }
      this.showParts(false);
      this.say("No rows yet. This page fills itself when the first one comes.");
    } catch (error) {
      const isUnknown = error instanceof Refusal && error.status === 404;
      this.showParts(false);
      if (isUnknown) this.say(`There is no battery ${this.name} yet, or no row of it. This page fills itself when the first one comes.`);
      else this.tell(error);
    }
    setTimeout(() => void this.begin(asked), NEWEST_MS);
  }

  private showParts(hasRows: boolean): void {
    for (const part of [this.tiles.element, this.charts, this.estimates.element, this.histograms.element, this.cycles.element]) {
      part.hidden = !hasRows;
    }
  }

  private rows(query: string): Promise<Rows> {
    return getJson<Rows>(`/db/${encodeURIComponent(this.name)}/rows?${query}`);
  }

  private async askNewest(): Promise<Rows | null> {
    const page = await this.rows("limit=1&order=desc");
    if (page.seq.length === 0) return null;
    if (this.epoch !== null && this.epoch !== page.epoch) location.reload();
    this.epoch = page.epoch;
    const columns = Object.keys(page.columns).filter((column) => typeof page.columns[column]![0] === "number");
    this.history.offer(columns, page.units);
    this.history.warn(page.columns);
    if (this.histograms.list().length === 0) this.histograms.offer(columns);
    this.newestSeq = Math.max(this.newestSeq, page.seq[0]!);
    this.toolbar.offer(columns.includes("test_time"));
    this.tiles.rows(page.last_seq - page.first_seq + 1);
    if (!this.newest || page.seq[0]! > this.newest.seq) this.tiles.take(asLive(page));
    return page;
  }

  /** Time of the test where it rises all along; several tests overlap in it, so there rows are counted. */
  private async usualAxis(newest: Rows): Promise<Axis> {
    if (!newest.columns["test_time"]) return "received";
    if (newest.segment[0] === 1) return "test_time";
    const coarse = await this.rows("axis=seq&max_points=500&columns=test_time");
    const times = numbers(coarse, "test_time").filter((time) => time !== null);
    return times.every((time, at) => at === 0 || time >= times[at - 1]!) ? "test_time" : "seq";
  }

  private async extent(axis: Axis, newest: Rows): Promise<[number, number]> {
    const first = await this.rows(`limit=1&order=asc`);
    const last = places(newest, axis)[0] ?? 0;
    return [places(first, axis)[0] ?? last, last];
  }

  private async setAxis(axis: Axis): Promise<void> {
    try {
      const newest = await this.askNewest();
      if (newest) this.view.setAxis(axis, await this.extent(axis, newest));
    } catch (error) {
      this.tell(error);
    }
  }

  private take(live: Live): void {
    this.newest = live;
    this.newestSeq = Math.max(this.newestSeq, live.seq);
    this.tiles.take(live);
    const place = this.placeOf(live);
    if (place === null || !this.view.isFollowing() || this.loadedSeq === 0) return;
    this.view.extent[1] = Math.max(this.view.extent[1], place);
    this.history.take(live, place);
  }

  private takeLink(state: LinkState): void {
    this.page.link(state);
    this.link = state;
    if (state === "live") this.tiles.liveAgain();
    void this.showStored();
  }

  /** Shows what the estimator said last, while nothing is live. */
  private async showStored(): Promise<void> {
    if (this.link !== "away") return;
    // Whoever is away is told of above the page.
    const stored = await newestStored(this.name).catch(() => null);
    if (stored && this.link === "away") this.tiles.takeStored(stored);
  }

  private placeOf(live: Live): number | null {
    if (this.view.axis === "seq") return live.seq;
    if (this.view.axis === "received") return live.timestamp / 1000;
    return typeof live["test_time"] === "number" ? live["test_time"] : null;
  }

  /** Looks whether rows came, and shows them unless somebody looks at a part of the past. */
  private async advance(): Promise<void> {
    const newest = await this.askNewest();
    if (!newest) return;
    const place = places(newest, this.view.axis)[0];
    if (place != null) this.view.extent[1] = Math.max(this.view.extent[1], place);
    const isNew = newest.seq[0]! > this.loadedSeq;
    const seen = `${newest.seq[0]} ${this.estimators.progress()}`;
    if (seen !== this.seen) [this.seen, this.settling] = [seen, SETTLING];
    this.toolbar.show(isNew && !this.view.isFollowing() ? newest.seq[0]! - this.loadedSeq : 0);
    if (!this.view.isFollowing()) return;
    if (this.settling > 0 && !this.loads.estimates.isBusy) {
      this.settling--;
      this.loadPart("estimates");
    }
    if (!isNew || this.loads.history.isBusy) return;
    this.loadedSeq = newest.seq[0]!;
    this.loadPart("history");
    if (performance.now() - this.slowAt > SLOW_MS && !this.loads.histograms.isBusy) {
      this.slowAt = performance.now();
      this.loadPart("histograms");
    }
  }

  private changed(): void {
    // All that is known of by now is asked for; only what comes later counts as newer.
    this.loadedSeq = this.newestSeq;
    this.toolbar.show(0);
    this.load();
  }

  private load(): void {
    this.slowAt = performance.now();
    for (const part of ["history", "estimates", "histograms", "cycles"] as const) this.loadPart(part);
  }

  private loadPart(part: "history" | "estimates" | "histograms" | "cycles"): void {
    const loaded = this.loads[part].run((signal) => this[part].load(signal));
    loaded.then(
      () => part === "history" && this.say(""),
      (error) => this.tell(error),
    );
  }

  private savePicture(): void {
    const charts = [...this.history.list(), ...this.estimates.list()];
    savePicture(`${this.name}`, `${this.name}, ${this.toolbar.describe()}`, charts);
  }
}

/** The newest row as the live socket would tell it, for when there is none. */
function asLive(page: Rows): Live {
  const cell = (column: string) => numbers(page, column)[0] ?? null;
  return {
    timestamp: (page.received[0] ?? serverNow() * 1000) / 1000,
    epoch: page.epoch,
    seq: page.seq[0]!,
    voltage: cell("voltage"),
    current: cell("current"),
    temperature: cell("temperature"),
  } as unknown as Live;
}

