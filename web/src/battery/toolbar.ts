// Chooses the range: axis, window or everything, zoom, reset; and takes the range away as a file.
import { fill, h, setText } from "../dom";
import { count, moment, testTime } from "../format";
import type { Axis, View } from "./view";

interface Acts {
  axis: (axis: Axis) => void;
  picture: () => void;
}

const AXES: [Axis, string][] = [
  ["test_time", "Test time"],
  ["received", "Time received"],
  ["seq", "Row"],
];

export class Toolbar {
  readonly element = h("div", { class: "bar", role: "toolbar", "aria-label": "Range of the charts" });
  private readonly axes = h("select", { "aria-label": "Axis" });
  private readonly spans = h("select", { "aria-label": "Window" });
  private readonly state = h("span", { class: "soft", role: "status" });
  private readonly live = button("Follow", "Show the newest rows again (0)");
  private readonly reset = button("Reset window", "Begin anew with the next row");
  private readonly csv = link("CSV");
  private readonly hdf5 = link("HDF5");
  private offered = "";

  constructor(
    private readonly battery: string,
    private readonly view: View,
    acts: Acts,
  ) {
    const zoom = h(
      "span",
      { class: "group", role: "group", "aria-label": "Zoom" },
      button("←", "Earlier", () => view.pan(-0.5)),
      button("−", "Zoom out", () => view.zoomBy(2)),
      button("+", "Zoom in", () => view.zoomBy(0.5)),
      button("→", "Later", () => view.pan(0.5)),
    );
    const files = h(
      "span",
      { class: "group push", role: "group", "aria-label": "Export this range" },
      this.csv,
      this.hdf5,
      button("PNG", "Save the charts as a picture", acts.picture),
    );
    this.axes.addEventListener("change", () => acts.axis(this.axes.value as Axis));
    this.spans.addEventListener("change", () => view.setWidth(this.spans.value === "" ? null : Number(this.spans.value)));
    this.live.addEventListener("click", () => view.follow());
    this.reset.addEventListener("click", () => view.reset(view.since === null ? view.extent[1] : null));
    fill(this.element, this.axes, this.spans, this.reset, zoom, this.live, this.state, files);
  }

  /** Offers the axes that the battery has. */
  offer(hasTestTime: boolean): void {
    const axes = AXES.filter(([axis]) => axis !== "test_time" || hasTestTime);
    if (this.offered === String(axes)) return;
    this.offered = String(axes);
    fill(this.axes, ...axes.map(([axis, text]) => h("option", { value: axis }, text)));
  }

  /** Shows how the view stands; `waiting` rows came while a part of the past is looked at. */
  show(waiting: number): void {
    const { view } = this;
    this.axes.value = view.axis;
    const width = view.width === null ? "" : String(view.width);
    fill(this.spans, ...view.spans().map((span) => h("option", { value: span.width ?? "", selected: String(span.width ?? "") === width }, span.text)));
    const isZoomed = !view.isFollowing();
    this.live.disabled = !isZoomed;
    setText(this.reset, view.since === null ? "Reset window" : "Show all");
    this.reset.title = view.since === null ? "Begin anew with the next row" : "Undo the reset of the window";
    setText(this.state, isZoomed && waiting > 0 ? `${this.describe()}; ${count(waiting)} newer ${waiting === 1 ? "row" : "rows"}` : this.describe());
    const query = view.query();
    const path = (format: string) => `/db/${encodeURIComponent(this.battery)}/rows/export?${query}&format=${format}`;
    this.csv.href = path("csv");
    this.hdf5.href = path("h5");
  }

  describe(): string {
    const { view } = this;
    const [from, to] = view.shown();
    const text = (place: number) => placeText(view.axis, place);
    if (!view.isFollowing()) return `${text(from)} … ${text(to)}`;
    if (view.since !== null) return `since ${text(view.since)}`;
    return "";
  }
}

function placeText(axis: Axis, place: number): string {
  if (axis === "received") return moment(place * 1000);
  if (axis === "seq") return `row ${count(Math.round(place))}`;
  return testTime(place);
}

function button(text: string, title: string, act?: () => void): HTMLButtonElement {
  const made = h("button", { type: "button", title, "aria-label": text.length === 1 ? title : null }, text);
  if (act) made.addEventListener("click", act);
  return made;
}

function link(text: string): HTMLAnchorElement {
  return h("a", { class: "button", download: "", title: `Save the rows of this range as ${text}` }, text);
}
