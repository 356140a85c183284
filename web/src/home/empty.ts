// What to do where there is no battery yet.
import { h } from "../dom";

export function firstSteps(): Node[] {
  const origin = location.origin;
  const command = (text: string) => h("pre", { tabindex: "0" }, text);
  return [
    h("h2", {}, "No batteries yet"),
    h("p", {}, "A battery appears here with its first row or its metadata. Any of these brings one:"),
    h(
      "ol",
      {},
      h("li", {}, h("a", { href: "/register" }, "Upload metadata or a file of rows"), " from this browser."),
      h(
        "li",
        {},
        "See it at work: five simulated cells, live until Ctrl-C, from a terminal:",
        command(`rovicli --url ${origin} fake --batteries 5 --register`),
      ),
      h(
        "li",
        {},
        "Stream a file of a whole test, simulated here, or of your own:",
        command(
          `rovicli simulate cell.h5 --rows 5000 --estimator cell.json\n` +
            `rovicli --url ${origin} metadata cell.h5\n` +
            `rovicli --url ${origin} register cell 0 cell.json\n` +
            `rovicli --url ${origin} stream cell.h5 --speedup max`,
        ),
      ),
      h(
        "li",
        {},
        "Send rows from a program of yours:",
        command(
          `curl ${origin}/db/upload/cell --json \\\n  '[{"test_time": 0, "voltage": 3.7, "current": -1.0, "temperature": 25}]'`,
        ),
        h("a", { href: "/docs/" }, "The whole interface"),
      ),
    ),
  ];
}
