// Rows and estimates of the hub, reduced to what a chart can show.
import { getJson } from "../api";
import type { Axis, View } from "./view";

export interface Page {
  epoch: number;
  first_seq: number;
  last_seq: number;
  seq: number[];
  received: (number | null)[];
  segment: (number | null)[];
  columns: Record<string, unknown[]>;
  units: Record<string, string>;
}

/** Rows of a range, at most `points` of them; extremes of every column asked for are among them. */
export function reduced(path: string, view: View, columns: string[], points: number, signal: AbortSignal): Promise<Page> {
  const query = view.query();
  query.set("max_points", String(points));
  const wanted = view.axis === "test_time" ? [...columns, "test_time"] : columns;
  for (const column of new Set(wanted)) query.append("column", column);
  return getJson<Page>(`${path}${path.includes("?") ? "&" : "?"}${query}`, signal);
}

/** Places along the axis; rows without one are left out by `keep`. */
export function places(page: Page, axis: Axis): (number | null)[] {
  if (axis === "seq") return page.seq;
  if (axis === "received") return page.received.map((us) => (us === null ? null : us / 1e6));
  return numbers(page, "test_time");
}

export function numbers(page: Page, column: string): (number | null)[] {
  const found = page.columns[column];
  if (!found) return page.seq.map(() => null);
  return found.map((value) => (typeof value === "number" ? value : null));
}

/** Orders rows along the axis and leaves out those without a place, as charts need it. */
export function along(page: Page, axis: Axis, names: string[]): { x: number[]; columns: (number | null)[][] } {
  const at = places(page, axis);
  const order = [...at.keys()].filter((row) => at[row] !== null);
  order.sort((a, b) => at[a]! - at[b]!);
  const columns = names.map((name) => numbers(page, name));
  return {
    x: order.map((row) => at[row]!),
    columns: columns.map((column) => order.map((row) => column[row] ?? null)),
  };
}

/** Runs the newest request only: an earlier one that is still under way is given up. */
export class Newest {
  private running: AbortController | null = null;

  async run(ask: (signal: AbortSignal) => Promise<void>): Promise<void> {
    this.running?.abort();
    const mine = new AbortController();
    this.running = mine;
    try {
      await ask(mine.signal);
    } catch (error) {
      if (!mine.signal.aborted) throw error;
    } finally {
      if (this.running === mine) this.running = null;
    }
  }

  get isBusy(): boolean {
    return this.running !== null;
  }
}
