// `/status`: hubs and twins, as their heartbeats tell.
import { explain, getJson } from "./api";
import { fill, h, setText } from "./dom";
import { NONE, count, duration, fixed } from "./format";
import { badge, openPage } from "./shell";

interface Service {
  service: string;
  instance: string;
  version: string;
  at: number;
  uptime_s: number;
  state: string;
  problems: Record<string, string>;
  lag: Record<string, number>;
  queues: Record<string, number>;
  totals: Record<string, number>;
  silent_s: number;
  is_stale: boolean;
}

const ASK_MS = 2000;
const TITLES: Record<string, string> = { datahub: "Data Hub", twin: "Digital Twin" };
/** Names of figures in the words of the page. */
const WORDS: Record<string, string> = {
  rows_not_relayed: "rows not on the bus yet",
  rows_waiting: "rows waiting",
  upload_sockets: "upload sessions",
  batteries_parked: "batteries set aside",
  rows_behind: "rows behind",
  checkpoint_age_s: "s unsaved",
  live_sockets: "live sessions",
};

interface Before {
  at: number;
  rows: number;
  perSecond: number | null;
}

export function openStatus(): void {
  const page = openPage("Services");
  const asked = h("span", { class: "soft push", role: "status" });
  const list = h("div", {});
  page.main.append(h("div", { class: "bar" }, h("h1", {}, "Services"), asked), list);
  const before = new Map<string, Before>();
  const ask = async () => {
    try {
      const services = await getJson<Service[]>("/db/services");
      for (const one of services) rate(before, one);
      const stale = services.filter((one) => one.is_stale).length;
      setText(asked, `${services.length} instances${stale ? `, ${stale} stale` : ""}`);
      fill(list, services.length ? table(services, before) : nobody());
    } catch (error) {
      setText(asked, explain(error));
    }
    setTimeout(() => void ask(), ASK_MS);
  };
  void ask();
}

function nobody(): HTMLElement {
  return h(
    "p",
    { class: "note" },
    "No heartbeat was heard on the bus. This hub hears them by NATS: see above whether that is away.",
  );
}

/** Rows a second between two heartbeats; between them the last is kept. */
function rate(before: Map<string, Before>, one: Service): void {
  const key = `${one.service} ${one.instance}`;
  const last = before.get(key);
  const rows = one.totals.rows ?? 0;
  if (!last) {
    before.set(key, { at: one.at, rows, perSecond: null });
  } else if (one.at > last.at) {
    const perSecond = (rows - last.rows) / ((one.at - last.at) / 1e6);
    before.set(key, { at: one.at, rows, perSecond });
  }
}

function table(services: Service[], before: Map<string, Before>): HTMLElement {
  const head = ["Service", "State", "Version", "Uptime", "Heard", "Rows/s", "Rows", "Partitions", "Lag", "Queues and sessions", "Refused rows"];
  const numbers = new Set(["Uptime", "Heard", "Rows/s", "Rows", "Partitions"]);
  const lines = services.map((one) => {
    const known = before.get(`${one.service} ${one.instance}`);
    const { partitions, estimators, ...queues } = one.queues;
    const state = one.is_stale ? badge("stale", "bad", "silent for three heartbeats or more") : stateBadge(one.state);
    const number = (text: string) => h("td", { class: "n" }, text);
    return h(
      "tr",
      { "data-service": one.service, "data-stale": one.is_stale ? "true" : null },
      h("td", {}, TITLES[one.service] ?? one.service, " ", h("code", { class: "soft" }, one.instance)),
      h("td", {}, state, " ", problems(one)),
      h("td", {}, one.version),
      number(duration(one.uptime_s + (one.is_stale ? 0 : one.silent_s))),
      number(`${duration(one.silent_s)} ago`),
      number(known?.perSecond === null || !known || one.is_stale ? NONE : fixed(known.perSecond, known.perSecond < 100 ? 1 : 0)),
      number(count(one.totals.rows ?? 0)),
      number(partitions === undefined ? "" : `${partitions}`),
      h("td", { class: "wrap" }, figures(one.lag)),
      h("td", { class: "wrap" }, figures({ ...(estimators === undefined ? {} : { estimators }), ...queues })),
      h("td", { class: "wrap" }, refused(one.totals)),
    );
  });
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": "Instances" },
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, ...head.map((text) => h("th", { scope: "col", class: numbers.has(text) ? "n" : null }, text)))),
      h("tbody", {}, ...lines),
    ),
  );
}

function stateBadge(state: string): HTMLElement {
  return badge(state, state === "ready" ? "good" : "warn");
}

function problems(one: Service): HTMLElement | null {
  const said = Object.entries(one.problems).map(([part, problem]) => `${part}: ${problem}`);
  return said.length ? h("span", { class: "warn" }, said.join("; ")) : null;
}

function figures(of: Record<string, number>): string {
  const said = Object.entries(of).map(([name, value]) => `${count(value)} ${WORDS[name] ?? name.replaceAll("_", " ")}`);
  return said.join(", ");
}

/** Counts by reason; those that never happened are left out. */
function refused(totals: Record<string, number>): string {
  const said: string[] = [];
  for (const [name, value] of Object.entries(totals)) {
    const reason = /^(?:refused_by|skipped)_(.*)$/.exec(name)?.[1] ?? (name === "frames_refused" ? "frames unreadable" : null);
    if (reason && value) said.push(`${count(value)} ${reason.replaceAll("_", " ")}`);
  }
  return said.join(", ") || "none";
}
