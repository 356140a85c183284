// Bundles the pages into dist/: hashed files that never change under their name, and the one
// document that names them, each also as gzip and brotli. The hub embeds the folder.
import { build } from "esbuild";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const root = dirname(fileURLToPath(import.meta.url));
const dist = join(root, "dist");
// What a browser loads before the first page shows, compressed.
const MOST_FIRST_BYTES = 200_000;

await rm(dist, { recursive: true, force: true });
await mkdir(join(dist, "assets"), { recursive: true });

const bundle = await build({
  absWorkingDir: root,
  entryPoints: { main: "src/main.ts", style: "src/style.css" },
  outdir: "dist/assets",
  entryNames: "[name]-[hash]",
  chunkNames: "[name]-[hash]",
  bundle: true,
  splitting: true,
  format: "esm",
  target: ["es2022"],
  minify: true,
  legalComments: "none",
  write: false,
  metafile: true,
});

const nameOf = (entry) =>
  Object.entries(bundle.metafile.outputs)
    .find(([, output]) => output.entryPoint === entry)[0]
    .replace("dist/", "");
const [script, style] = [nameOf("src/main.ts"), nameOf("src/style.css")];
const shell = (await readFile(join(root, "src/index.html"), "utf8"))
  .replace("{{script}}", `/${script}`)
  .replace("{{style}}", `/${style}`);

const files = bundle.outputFiles.map((file) => [file.path.slice(dist.length + 1), file.contents]);
files.push(["index.html", Buffer.from(shell)]);
files.push(["assets/icon.svg", await readFile(join(root, "src/icon.svg"))]);

let first = 0;
for (const [name, bytes] of files) {
  const gzip = gzipSync(bytes, { level: 9 });
  const brotli = brotliCompressSync(bytes, {
    params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length },
  });
  await writeFile(join(dist, name), bytes);
  await writeFile(join(dist, `${name}.gz`), gzip);
  await writeFile(join(dist, `${name}.br`), brotli);
  first += gzip.length;
  console.log(`${name.padEnd(34)} ${bytes.length} bytes, gzip ${gzip.length}, brotli ${brotli.length}`);
}
if (first > MOST_FIRST_BYTES) {
  console.error(`all pages together have ${first} bytes as gzip; ${MOST_FIRST_BYTES} are the most`);
  process.exit(1);
}
