// Metadata and alerts of a battery. Both hold what users wrote: it is set as text, never as markup.
import { Refusal, askTwin, getJson } from "../api";
import { fill, h } from "../dom";
import type { Alert } from "../fleet";
import { duration, moment, prettyJson } from "../format";
import { serverNow } from "../live";
import { badge, severityLevel } from "../shell";

export async function loadMetadata(battery: string, place: HTMLElement): Promise<string | null> {
  const title = h("h2", {}, "Metadata");
  try {
    const metadata = await getJson<Record<string, unknown>>(`/db/${encodeURIComponent(battery)}/metadata`);
    const lines = flat(metadata, "").flatMap(([path, value]) => [h("dt", {}, path), h("dd", {}, value)]);
    const raw = h("details", {}, h("summary", {}, "As JSON"), h("pre", { tabindex: "0" }, prettyJson(metadata)));
    fill(place, title, h("dl", { class: "facts" }, ...lines), raw);
    return typeof metadata.name === "string" ? metadata.name : null;
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    const text = error.status === 404 ? "No metadata. " : `${error.message} `;
    const link = error.status === 404 && h("a", { href: `/register?battery=${encodeURIComponent(battery)}#metadata` }, "Add some");
    fill(place, title, h("p", { class: "soft" }, text, link));
    return null;
  }
}

function flat(value: unknown, path: string): [string, string][] {
  if (value === null || value === undefined) return [];
  if (Array.isArray(value)) {
    const isPlain = value.every((one) => one === null || typeof one !== "object");
    if (isPlain) return [[path, value.join(", ")]];
    return value.flatMap((one, at) => flat(one, `${path}[${at}]`));
  }
  if (typeof value === "object") {
    return Object.entries(value).flatMap(([key, inner]) => flat(inner, path ? `${path}.${key}` : key));
  }
  return [[path, String(value)]];
}

export async function loadAlerts(battery: string, place: HTMLElement, take: (alerts: Alert[]) => void): Promise<void> {
  const title = h("h2", {}, "Alerts");
  let alerts: Alert[];
  try {
    alerts = await askTwin<Alert[]>("/online/alerts");
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    take([]);
    fill(place, title, h("p", { class: "soft" }, `Alerts are not known while the ${error.status === 0 ? "Data Hub" : "Digital Twin"} is away.`));
    return;
  }
  const mine = alerts.filter((alert) => alert.battery === battery);
  take(mine);
  mine.sort((a, b) => Number(b.is_active) - Number(a.is_active) || b.raised - a.raised);
  if (mine.length === 0) {
    fill(place, title, h("p", { class: "soft" }, "No rule was broken."));
    return;
  }
  const lines = mine.map((alert) =>
    h(
      "tr",
      {},
      h("td", {}, badge(alert.is_active ? alert.severity : "over", alert.is_active ? severityLevel(alert.severity) : "none")),
      h("td", {}, alert.rule),
      h("td", { title: moment(alert.raised / 1000) }, `${duration(serverNow() / 1000 - alert.raised / 1e6)} ago`),
      h("td", {}, alert.detail),
    ),
  );
  fill(place, title, h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Alerts" }, h("table", {}, h("tbody", {}, ...lines))));
}
