// Which part of a battery's life the charts show: one range for all of them.
import { count } from "../format";

export type Axis = "test_time" | "received" | "seq";
export type Range = [number | null, number | null];

export interface Span {
  /** Width along the axis; null is everything since the reset, or at all. */
  width: number | null;
  text: string;
}

const MINUTE = 60;
const HOUR = 3600;
const DAY = 86_400;

const TIME_SPANS: Span[] = [
  { width: null, text: "Cumulative" },
  { width: 10 * MINUTE, text: "Last 10 min" },
  { width: HOUR, text: "Last hour" },
  { width: 6 * HOUR, text: "Last 6 h" },
  { width: DAY, text: "Last day" },
  { width: 7 * DAY, text: "Last week" },
  { width: 30 * DAY, text: "Last 30 days" },
];
const ROW_SPANS: Span[] = [
  { width: null, text: "Cumulative" },
  ...[100, 1000, 10_000, 100_000].map((rows) => ({ width: rows, text: `Last ${count(rows)} rows` })),
];

export class View {
  axis: Axis = "test_time";
  /** First and newest place along the axis. */
  extent: [number, number] = [0, 0];
  width: number | null = null;
  /** Where the window was reset: nothing before it is shown or counted. */
  since: number | null = null;
  zoom: [number, number] | null = null;
  private readonly listeners: (() => void)[] = [];

  onChange(listener: () => void): void {
    this.listeners.push(listener);
  }

  spans(): Span[] {
    return this.axis === "seq" ? ROW_SPANS : TIME_SPANS;
  }

  /** The range to ask for; open ends grow with the data. */
  range(): Range {
    if (this.zoom) return this.zoom;
    const from = this.width === null ? null : this.extent[1] - this.width;
    if (from === null) return [this.since, null];
    return [Math.max(from, this.since ?? from), null];
  }

  /** The range to draw. */
  shown(): [number, number] {
    const [from, to] = this.range();
    return [from ?? this.extent[0], to ?? this.extent[1]];
  }

  isFollowing(): boolean {
    return this.zoom === null;
  }

  zoomTo(from: number, to: number): void {
    const least = this.axis === "seq" ? 1 : 1e-3;
    this.zoom = to - from > least ? [from, to] : [from - least, to + least];
    this.tell();
  }

  /** Makes the range `factor` as wide around a place, by default its middle. */
  zoomBy(factor: number, around?: number): void {
    const [from, to] = this.shown();
    const middle = around ?? (from + to) / 2;
    this.zoomTo(middle - (middle - from) * factor, middle + (to - middle) * factor);
  }

  /** Moves the range by a share of its width. */
  pan(share: number): void {
    const [from, to] = this.shown();
    const by = (to - from) * share;
    this.zoomTo(from + by, to + by);
  }

  /** Follows the newest data again. */
  follow(): void {
    this.zoom = null;
    this.tell();
  }

  setAxis(axis: Axis, extent: [number, number]): void {
    this.axis = axis;
    this.extent = extent;
    this.zoom = null;
    this.width = null;
    this.since = null;
    this.tell();
  }

  setWidth(width: number | null): void {
    this.width = width;
    this.zoom = null;
    this.tell();
  }

  /** Begins the window anew here, or shows all again. */
  reset(since: number | null): void {
    this.since = since;
    this.zoom = null;
    this.tell();
  }

  /** Reads what stands in the address, so that a view can be shared. */
  readAddress(): void {
    const asked = new URLSearchParams(location.search);
    const number = (name: string) => {
      const text = asked.get(name);
      const value = Number(text);
      return text !== null && text !== "" && Number.isFinite(value) ? value : null;
    };
    const [from, to] = [number("from"), number("to")];
    this.zoom = from !== null && to !== null && from < to ? [from, to] : null;
    this.width = number("last");
    this.since = number("since");
  }

  private tell(): void {
    const said = new URLSearchParams({ axis: this.axis });
    if (this.zoom) {
      said.set("from", String(this.zoom[0]));
      said.set("to", String(this.zoom[1]));
    }
    if (this.width !== null) said.set("last", String(this.width));
    if (this.since !== null) said.set("since", String(this.since));
    history.replaceState(null, "", `${location.pathname}?${said}`);
    for (const listener of this.listeners) listener();
  }

  /** The range as fields of a question to the hub. */
  query(): URLSearchParams {
    const [from, to] = this.range();
    const fields = new URLSearchParams({ axis: this.axis });
    const end = (value: number, round: (value: number) => number) =>
      String(this.axis === "seq" ? Math.max(1, round(value)) : value);
    if (from !== null) fields.set("from", end(from, Math.floor));
    if (to !== null) fields.set("to", end(to, Math.ceil));
    return fields;
  }
}
