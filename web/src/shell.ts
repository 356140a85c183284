// What all pages share: the head, the theme, and what is said when a part of the service is away.
import { Refusal, askTwin, request } from "./api";
import { fill, h, setText } from "./dom";
import { hearBus } from "./live";
import type { LinkState } from "./live";
import { showWho } from "./session";

export interface Page {
  main: HTMLElement;
  /** Shows how the live socket stands. */
  link(state: LinkState): void;
}

const PAGES = [
  ["/", "Batteries"],
  ["/register", "Register"],
  ["/status", "Services"],
] as const;
const LINK_WORDS: Record<LinkState, string> = {
  connecting: "connecting",
  live: "live",
  away: "not live",
};
const ASK_READY_MS = 5000;

/** Makes the frame of a page and returns where its content goes. */
export function openPage(title: string): Page {
  document.title = title;
  const state = h("span", { class: "link-state soft", role: "status", hidden: true });
  const away = h("div", { class: "away", role: "status", hidden: true });
  const who = h("span", { class: "bar" });
  const main = h("main", { id: "content", tabindex: "-1" });
  const links = PAGES.map(([path, text]) =>
    h("a", { href: path, "aria-current": path === location.pathname ? "page" : null }, text),
  );
  const head = h(
    "header",
    { class: "top" },
    h("a", { class: "mark", href: "/" }, "ROVI"),
    h("nav", { "aria-label": "Pages" }, ...links),
    h("span", { class: "right" }, state, who, themeButton()),
  );
  document.body.replaceChildren(
    h("a", { class: "skip", href: "#content" }, "Skip to the content"),
    head,
    away,
    main,
  );
  void keepAsking(away);
  if (!isLogin()) void showWho(who);
  return {
    main,
    link: (how) => {
      state.hidden = false;
      state.dataset.state = how;
      setText(state, LINK_WORDS[how]);
    },
  };
}

/** Says above the page which part is away, and what still works. */
async function keepAsking(away: HTMLElement): Promise<void> {
  const said = await problems();
  away.hidden = said.length === 0;
  const text = said.join(" ");
  if (away.textContent !== text) fill(away, text);
  setTimeout(() => void keepAsking(away), document.hidden ? 4 * ASK_READY_MS : ASK_READY_MS);
}

async function problems(): Promise<string[]> {
  let parts: Record<string, string>;
  try {
    await request("/ready");
    parts = {};
  } catch (error) {
    if (!(error instanceof Refusal) || error.status === 0) {
      return ["The Data Hub does not answer. What is shown is the last that was known."];
    }
    parts = await readyProblems();
  }
  const said: string[] = [];
  if (parts["postgresql"]) said.push(`PostgreSQL is away: ${parts["postgresql"]}. Rows cannot be stored or read now.`);
  const bus = parts["nats"] ?? parts["relay"];
  hearBus(bus !== undefined);
  if (bus !== undefined) {
    said.push(`The bus (NATS) is away: ${bus}. Rows are stored and history can be read; nothing is live, and nothing can be registered.`);
  }
  // The twin tells strangers nothing, so they do not ask.
  if (!isLogin() && (await twinIsAway())) {
    said.push("The Digital Twin is away. Stored history and estimates can be read; nothing is live, and nothing can be registered.");
  }
  return said;
}

function isLogin(): boolean {
  return location.pathname === "/login";
}

async function readyProblems(): Promise<Record<string, string>> {
  try {
    const answer = (await (await fetch("/ready")).json()) as { problems?: Record<string, string> };
    return answer.problems ?? {};
  } catch {
    return {};
  }
}

async function twinIsAway(): Promise<boolean> {
  try {
    await askTwin("/online/services");
    return false;
  } catch (error) {
    return error instanceof Refusal && error.isAway;
  }
}

const THEMES = ["auto", "light", "dark"] as const;

function themeButton(): HTMLElement {
  const button = h("button", { type: "button" });
  const show = (theme: string) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    setText(button, `Theme: ${theme}`);
    // Charts are drawn, so they have to be told.
    window.dispatchEvent(new Event("themechange"));
  };
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.findIndex((one) => one === theme()) + 1) % THEMES.length]!;
    localStorage.setItem("theme", next);
    show(next);
  });
  show(theme());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show(theme()));
  return button;
}

function theme(): string {
  return localStorage.getItem("theme") ?? "auto";
}

/** A colour of the style sheet as a canvas takes it. */
export function colour(name: string): string {
  const probe = h("span", { hidden: true });
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/** A state in a word, with a level for its colour. */
export function badge(text: string, level: "good" | "warn" | "bad" | "none", title?: string): HTMLElement {
  return h("span", { class: "badge", "data-level": level, title: title ?? null }, text);
}

export function trustLevel(trust: string): "good" | "warn" | "bad" {
  if (trust === "healthy") return "good";
  return trust === "diverged" ? "bad" : "warn";
}

export function phaseLevel(phase: string): "good" | "warn" | "bad" | "none" {
  if (phase === "live") return "good";
  if (phase === "broken") return "bad";
  return "warn";
}

export function severityLevel(severity: string): "none" | "warn" | "bad" {
  if (severity === "critical") return "bad";
  return severity === "warning" ? "warn" : "none";
}
