// The lines in sight, and only those: between two gaps as high as what is above and below them.
import { h } from "../dom";
import type { Battery } from "../fleet";
import { trustOf, urgencyLevel } from "./attention";
import { COLUMNS, classOf } from "./columns";

const ROW_PX = 30;
/** Lines drawn beyond those in sight, so that scrolling shows no gaps. */
const MARGIN = 12;

export class Lines {
  readonly body = h("tbody");
  private readonly before = gap();
  private readonly after = gap();
  private readonly lines: HTMLTableRowElement[] = [];
  private first = 0;
  private painted = "";

  constructor() {
    this.body.append(this.before, this.after);
  }

  /** Puts the batteries in sight of `scroll` into the document; returns those that are really seen. */
  paint(scroll: HTMLElement, shown: Battery[], refresh: boolean): Battery[] {
    const top = Math.floor(scroll.scrollTop / ROW_PX);
    const fits = Math.ceil(scroll.clientHeight / ROW_PX);
    const first = Math.max(0, Math.min(top - MARGIN, shown.length - 1));
    const last = Math.min(shown.length, top + fits + MARGIN);
    const place = `${first} ${last} ${shown.length}`;
    if (place !== this.painted || refresh) {
      this.painted = place;
      this.before.cells[0]!.style.height = `${first * ROW_PX}px`;
      this.after.cells[0]!.style.height = `${(shown.length - last) * ROW_PX}px`;
      this.move(first);
      this.fit(Math.max(0, last - first));
      this.lines.forEach((line, at) => show(line, shown[first + at], first + at));
    }
    return shown.slice(top, top + fits);
  }

  /**
   * Takes lines that went out of sight to the other end, so that all others keep their battery:
   * else a link in focus would become another's, and who goes by Tab would miss some.
   */
  private move(first: number): void {
    const by = first - this.first;
    this.first = first;
    if (Math.abs(by) >= this.lines.length) return;
    for (let moved = 0; moved < by; moved++) {
      const line = this.lines.shift()!;
      this.lines.push(line);
      this.body.insertBefore(line, this.after);
    }
    for (let moved = 0; moved > by; moved--) {
      const line = this.lines.pop()!;
      this.body.insertBefore(line, this.lines[0] ?? this.after);
      this.lines.unshift(line);
    }
  }

  private fit(lines: number): void {
    while (this.lines.length > lines) this.lines.pop()!.remove();
    while (this.lines.length < lines) {
      const line = h("tr", {}, ...COLUMNS.map((column) => h("td", { class: classOf(column) })));
      this.lines.push(line);
      this.body.insertBefore(line, this.after);
    }
  }
}

function show(line: HTMLTableRowElement, battery: Battery | undefined, at: number): void {
  if (!battery) return;
  line.setAttribute("aria-rowindex", String(at + 2));
  line.toggleAttribute("data-stored", battery.isStored);
  line.toggleAttribute("data-distrusted", trustOf(battery) === "diverged");
  line.dataset.urgency = urgencyLevel(battery);
  line.title = battery.isStored ? "The last values that were stored; nothing of this battery is live." : "";
  COLUMNS.forEach((column, place) => column.show(line.cells[place]!, battery));
}

function gap(): HTMLTableRowElement {
  return h("tr", { class: "gap", "aria-hidden": "true" }, h("td", { colspan: COLUMNS.length }));
}
