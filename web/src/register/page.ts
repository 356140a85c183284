// `/register`: metadata, rows and estimators from the browser.
import { getJson } from "../api";
import { h } from "../dom";
import { openPage } from "../shell";
import { estimatorSection } from "./estimator";
import { labelled } from "./field";
import { metadataSection } from "./metadata";
import { rowsSection } from "./rows";

export function openRegister(): void {
  const page = openPage("Register");
  const asked = new URLSearchParams(location.search).get("battery") ?? "";
  const names = h("datalist", { id: "batteries" });
  const battery = h("input", { id: "battery", value: asked, list: "batteries", autocomplete: "off", placeholder: "cell-7" });
  const choice = h(
    "section",
    { class: "card" },
    h("form", { onsubmit: (event: Event) => event.preventDefault() }, labelled("Battery", battery, "A-Z a-z 0-9 _ -, at most 63. Rows and metadata make it, where it is new."), names),
  );
  const data = h("div", {}, metadataSection(battery), h("p", {}), rowsSection(battery));
  page.main.append(h("h1", {}, "Register"), choice, h("div", { class: "columns" }, data, estimatorSection(battery)));
  void offer(names);
  if (location.hash) document.querySelector(location.hash)?.scrollIntoView();
}

async function offer(names: HTMLElement): Promise<void> {
  const answer = await getJson<{ batteries: { name: string }[] }>("/db/batteries?limit=1000").catch(() => null);
  for (const { name } of answer?.batteries ?? []) names.append(h("option", { value: name }));
}
